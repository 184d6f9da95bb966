"""The report of a sweep in a real browser."""

import pytest

from dogs_accel.sweep.findings.page import write_sweep_report
from tests.support.sweep_findings import made_findings

pytestmark = pytest.mark.slow  # a browser takes seconds to start


@pytest.fixture(scope="module")
def findings():
    return made_findings()


@pytest.fixture(scope="module")
def report(findings, tmp_path_factory):
    return write_sweep_report(tmp_path_factory.mktemp("sweep"), findings)


@pytest.fixture
def page(open_page, report):
    return open_page(report, viewport={"width": 1280, "height": 900})


def test_it_opens_without_errors_and_without_a_network(page, report):
    page.wait_for_timeout(200)
    assert page.problems == []
    assert [url for url in page.requests if not url.startswith("data:")] == [report.as_uri()]
    assert page.title() == "A sweep of cnn5 on <flowers>"


def test_axe_finds_nothing(page, violations):
    assert violations(page) == []


@pytest.mark.parametrize("width_px", [1280, 390])
def test_nothing_is_wider_than_the_window(page, width_px):
    page.set_viewport_size({"width": width_px, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0


def test_every_column_of_the_levels_is_seen(page):
    lies_outside = "table => table.scrollWidth - table.closest('.scroll').clientWidth"
    assert page.locator("#levels").evaluate(lies_outside) <= 0


def test_choices_leave_the_trials_that_have_them(page, findings):
    trials = findings.trials
    page.get_by_label("batch_norm", exact=True).select_option(label="true")
    has = trials.counted["batch_norm"] == True  # noqa: E712  (a column of objects)
    assert page.locator("#parallel g:visible").count() == has.sum()
    best = trials.values[has.to_numpy(dtype=bool)].max()
    assert page.locator("#picked").inner_text().endswith(f"best {best:.4f}")
    page.get_by_role("button", name="Show all").click()
    assert page.locator("#parallel g:visible").count() == len(trials.values)


def test_arrow_keys_go_from_the_best_trial_down(page, findings):
    order = findings.trials.best_of(3)["number"].tolist()
    page.locator("#parallel").focus()
    for number in order:
        page.keyboard.press("ArrowDown")
        assert page.locator("#chosen-trial").inner_text().startswith(f"Trial {number}, validation accuracy")
        assert page.locator(f"#parallel g[data-trial='{number}']").get_attribute("class") == "chosen"
    page.keyboard.press("Escape")
    assert page.locator("#chosen-trial").inner_text() == "No trial is chosen."


def test_a_row_of_the_table_chooses_its_line_and_columns_sort(page, findings):
    page.locator("#trials th", has_text="Accuracy").locator("button").click()
    values = page.eval_on_selector_all("#trials tbody tr", "rows => rows.map(row => row.cells[2].dataset.v)")
    known = [float(value) for value in values if value]
    assert known == sorted(known, reverse=True)
    assert values[len(known) :] == [""]
    number = int(findings.trials.best["number"])
    page.locator(f"#trials tr[data-trial='{number}']").click()
    assert page.locator(f"#parallel g[data-trial='{number}']").get_attribute("class") == "chosen"
