"""The report of a sweep, from made trials."""

import html
import json
import re

import numpy as np
import pandas as pd
import pytest

from dogs_accel.sweep.findings.figures import parallel_figure, time_figure
from dogs_accel.sweep.findings.importance import find_correlations, find_importance
from dogs_accel.sweep.findings.levels import find_levels
from dogs_accel.sweep.findings.page import SweepFindings, render_sweep_report
from dogs_accel.sweep.findings.sentences import write_sentences
from dogs_accel.sweep.findings.trials import SweepTrials
from dogs_accel.sweep.findings.views import coordinates_of
from dogs_accel.sweep.trials import RUNNING
from tests.support.made_sweeps import SMALL, choice, drawn, made_trials
from tests.support.sweep_findings import made_findings


@pytest.fixture(scope="module")
def findings():
    return made_findings()


@pytest.fixture(scope="module")
def page(findings):
    return render_sweep_report(findings)


def test_it_says_every_sentence_and_escapes_names(findings, page):
    for each in findings.sentences:
        assert html.escape(each.text, quote=False).replace('"', "&#34;") in page.replace("&#39;", "'")
    assert "<script>document.title" not in page
    assert "A sweep of cnn5 on &lt;flowers&gt;" in page


def test_every_trial_and_every_level_has_a_row(findings, page):
    assert len(re.findall(r"<tr data-trial=", page)) == 30
    rows = re.search(r'<table data-sortable id="levels">.*?</table>', page, re.DOTALL)[0].count("<tr>")
    assert rows == 1 + 3 + 2 + 3


def test_complete_trials_alone_are_lines_and_pruned_ones_are_said_to_be(findings, page):
    assert len(re.findall(r"<g data-trial=", page)) == 24
    assert page.count('class="trial pruned"') == 5
    assert page.count('class="trial failed"') == 1
    data = json.loads(re.search(r'id="trials-data">(.*?)</script>', page, re.DOTALL)[1])
    assert [trial["number"] for trial in data["trials"]] == findings.trials.counted["number"].tolist()


def test_it_loads_nothing(page):
    assert re.findall(r"(?:src|href)=\"(?!#|data:)[^\"]*\"", page) == []


def test_a_sweep_without_a_complete_trial_has_a_page():
    trials = made_trials(SMALL, drawn(SMALL, 2), np.full(2, np.nan), state=RUNNING)
    nothing = SweepFindings(
        trials=trials, levels=[], importance=[], correlations=[], bias=None, sentences=[], title="A sweep"
    )
    assert "No complete trial." in render_sweep_report(nothing)


def test_a_sweep_without_a_trial_has_a_page():
    trials = made_trials(SMALL, drawn(SMALL, 0), np.zeros(0))
    assert {each.reason for each in find_levels(trials)} == {"no complete trial had it"}
    levels = find_levels(trials)
    nothing = SweepFindings(
        trials=trials, levels=levels, importance=find_importance(trials), correlations=find_correlations(trials),
        bias=None, sentences=write_sentences(trials, levels, [], None), title="A sweep",
    )  # fmt: skip
    assert "No trial has a value yet." in render_sweep_report(nothing)


def test_a_space_of_one_value_and_one_trial_has_a_page_and_figures():
    space = (choice("batch_size", (32,)),)
    trials = made_trials(space, pd.DataFrame({"batch_size": [32]}), np.array([0.5]))
    one = SweepFindings(
        trials=trials, levels=[], importance=[], correlations=[], bias=None, sentences=[], title="A sweep"
    )
    assert "Parallel coordinates" in render_sweep_report(one)
    for draw in (time_figure, parallel_figure):
        assert draw(trials).axes


def test_coordinates_are_in_their_levels():
    parameters = drawn(SMALL, 20)
    trials = made_trials(SMALL, parameters, np.linspace(0.3, 0.5, 20))
    found = coordinates_of(trials)
    activation, batch_norm, lr, value = found.places.T
    assert (np.floor(activation * 3) == trials.levels[0].index).all()
    assert (np.floor(batch_norm * 2) == trials.levels[1].index).all()
    assert lr == pytest.approx(np.log10(parameters["lr"]) / 3 + 4 / 3)
    assert (np.diff(value) > 0).all()
    # Trials of one level are apart, the better one above.
    assert (np.diff(activation[trials.levels[0].index == 0]) > 0).all()


def test_why_a_trial_failed_stands_beside_its_state():
    space = (choice("set.lr", (900000.0, 0.12345)),)
    parameters = pd.DataFrame({"set.lr": [900000.0, 0.12345]})
    trials = made_trials(space, parameters, np.array([np.nan, 0.5]), state=["failed", "complete"], epochs=1)
    with_reason = SweepTrials(space=trials.space, table=trials.table.assign(reason=["the loss is <nan>", ""]))
    for each, reasons in ((trials, []), (with_reason, ["the loss is &lt;nan&gt;"])):
        page = render_sweep_report(
            SweepFindings(
                trials=each, levels=find_levels(each), importance=[], correlations=[], bias=None, sentences=[],
                title="A sweep",
            )
        )  # fmt: skip
        assert re.findall(r'<small class="why">(.*?)</small>', page) == reasons
        assert "Validation accuracy of 1 complete trial." in page
        assert "0.5000 after 1 epoch, complete" in page
        assert {"<td>900000</td>", "<td>0.12345</td>"} <= set(re.findall("<td>[^<]*</td>", page))
        assert "e+05" not in page
