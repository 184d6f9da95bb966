"""The runs as the page shows them first: names, colours, the table, the pairs, and the confusion counts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from dogs_accel.cost.model_cost import Latency, ModelCost
from dogs_accel.evaluation.mistakes import most_confused
from dogs_accel.evaluation.pairwise import NO_DIFFERENCE, compare_runs
from dogs_accel.evaluation.tta import describe_views
from dogs_accel.report.charts import line_key, nice_ticks
from dogs_accel.report.formats import ABSENT, interval, listed, score, seconds
from dogs_accel.report.marks import Marks, mark_best
from dogs_accel.report.recommend import over_folders, pair_verdict
from dogs_accel.results.comparison import short_labels, styles_of
from dogs_accel.results.folder import RunsFolder, folder_labels
from dogs_accel.results.layout import CONFUSION_COUNTS_FIGURE, PAIRWISE_FILE
from dogs_accel.results.reading import missing_columns
from dogs_accel.results.run import Run

SHOWN_MEASURES = (
    ("accuracy", "Accuracy", True),
    ("macro_f1", "Macro F1", True),
    ("ece", "ECE, 10 bins", False),
    ("training_seconds", "Training", False),
    ("total_params", "Parameters", False),
    ("flops", "GFLOPs", False),
    ("one_image_ms", "One image", False),
    ("top5_accuracy", "Top-5", True),
    ("weighted_f1", "Weighted F1", True),
    ("ece_15", "ECE, 15 bins", False),
    ("nll", "NLL", False),
    ("brier", "Brier", False),
    ("tta_accuracy", "Accuracy, views", True),
    ("tta_macro_f1", "Macro F1, views", True),
    ("tta_ece", "ECE, views", False),
)
"""Name, title, and whether more is better, of each column of the table of the runs; the last are by the mean over
views."""
_OF_VIEWS = "tta_"
_MOST_PAIRS = 4
"""Pairs that a sentence names."""
_PRECISION_AND_RECALL = (
    ("macro_precision", "Macro precision", True),
    ("macro_recall", "Macro recall", True),
    ("macro_f1", "Macro F1", True),
    ("weighted_precision", "Weighted precision", True),
    ("weighted_recall", "Weighted recall", True),
    ("weighted_f1", "Weighted F1", True),
)
"""The same of a table of their own: paper has no room for all of them beside each other."""
_SIZES = ("total_params", "flops")
"""Measures that are counted, so that they need no test."""
_TESTED = {"accuracy": "accuracy", "weighted_recall": "accuracy", "macro_f1": "macro_f1", "ece": "ece"}
"""Measures that the runs are compared in pairs by, by their names in pairwise_comparison.csv."""
METRIC_WORDS = {"accuracy": "Accuracy", "macro_f1": "Macro F1", "ece": "ECE"}


@dataclass(frozen=True, eq=False)
class RunView:
    """A run and how the page names, colours and finds it."""

    run: Run
    folder: RunsFolder
    folder_label: str
    """Name of the folder, unique on the page."""
    id: str
    label: str
    """Short and unique on the page."""
    colour: int
    marker: int
    """Of those that share its colour."""

    @property
    def key(self) -> Markup:
        """How its curves look."""
        return line_key(self.colour, self.marker)

    @property
    def config(self) -> list[tuple[str, Any]]:
        """What was trained: names and values, without the phases."""
        return [(key, value) for key, value in dataclasses.asdict(self.run.record.config).items() if key != "phases"]

    @property
    def settings(self) -> list[tuple[str, Any]]:
        """How it was trained: names and values, of what is recorded."""
        record = self.run.record
        return [(key, getattr(record, key)) for key in _SETTINGS if key not in record.absent]


_SETTINGS = (
    "phase_plan", "weights", "device", "num_processes", "amp", "bn_when_frozen", "bn_sees", "cache_features",
    "eval_batch_size", "best_epoch", "training_seconds_note",
)  # fmt: skip
"""Of a run's record, what the page lists at its end, where it is recorded."""


def run_views(folders: Sequence[RunsFolder]) -> list[RunView]:
    """Give each run an id, a label, with its folder where there are several, and the look that it has in figures."""
    every = [run for folder in folders for run in folder.runs]
    styles, names = styles_of(every), short_labels(every)
    views: list[RunView] = []
    labels = folder_labels(folder.folder.resolve() for folder in folders)
    for folder in folders:
        for run in folder.runs:
            label, style = names[len(views)], styles[len(views)]
            folder_label = labels[folder.folder.resolve()]
            if len(folders) > 1:
                label = f"{folder_label} / {label}"
            views.append(RunView(run, folder, folder_label, f"r{len(views)}", label, style.colour, style.marker))
    return views


def summary_table(views: Sequence[RunView], compared: pd.DataFrame | None) -> dict[str, Any]:
    """Lay out the table of the runs and the picture of the accuracies; measures that no run has are left out.

    compared: pairwise_comparison.csv, or the same over several folders, None where nothing compares their runs.
    """
    of_views = [line for view in views if (line := _gain_of_views(view)) is not None]
    return _measures(views, SHOWN_MEASURES, compared) | {"views": of_views, "forest": _forest(views)}


def precision_table(views: Sequence[RunView], compared: pd.DataFrame | None) -> dict[str, Any] | None:
    """Lay out precision, recall and F1 of the runs likewise; None where no run has measured precision."""
    if all(view.run.metrics.get("macro_precision") is None for view in views):
        return None
    return _measures(views, _PRECISION_AND_RECALL, compared)


def _measures(
    views: Sequence[RunView], measures: Sequence[tuple[str, str, bool]], compared: pd.DataFrame | None
) -> dict[str, Any]:
    rows = [(view, {key: _cell(view.run, key) for key, *_ in measures}) for view in views]
    kept = [each for each in measures if any(cells[each[0]]["value"] is not None for _, cells in rows)]
    marks = {
        key: _marks(views, key, [cells[key]["value"] for _, cells in rows], compared, larger=more)
        for key, _, more in kept
    }
    for row, (_, cells) in enumerate(rows):
        for key in marks:
            cells[key] |= {"is_best": row in marks[key].rows, "title": marks[key].title_of(row)}
    return {
        "columns": [{"title": title, "starts_down": starts_down} for _, title, starts_down in kept],
        "rows": [{"view": view, "cells": [cells[key] for key, *_ in kept]} for view, cells in rows],
        "no_interval": list(dict.fromkeys(reason for _, cells in rows for reason in _reasons(cells.values()))),
        "has_marks": any(each.rows for each in marks.values()),
        "unmarked": [f"{title}: {marks[key].why_none}" for key, title, _ in kept if marks[key].why_none],
    }


def _marks(
    views: Sequence[RunView], key: str, values: Sequence[float | None], compared: pd.DataFrame | None, *, larger: bool
) -> Marks:
    """Mark the best runs of a column, by the test of its measure or the intervals of its times where it has them."""
    labels = [view.label for view in views]
    if key in _SIZES:
        return mark_best(values, labels, larger=larger)
    if key == "one_image_ms":
        costs = [view.run.cost for view in views]
        if len({cost.setting.where for cost in costs if cost is not None}) > 1:
            return Marks()
        return _mark_times([None if cost is None else cost.one_image_ms for cost in costs], labels)
    if compared is None and _are_of_several_folders(views):
        return Marks()  # which were tested on other images
    if key == "training_seconds":
        is_one_device = len({view.folder.device for view in views}) == 1
        return mark_best(values, labels, larger=larger, untested=", of one training each") if is_one_device else Marks()
    if key not in _TESTED:
        return mark_best(values, labels, larger=larger, untested="; differences in it are not tested")
    known_as = [_known_as(view, views) for view in views]

    def shown(row: int, other: int) -> bool | None:
        verdict = pair_verdict(compared, known_as[row], known_as[other], _TESTED[key])
        return None if verdict is None else verdict != NO_DIFFERENCE

    return mark_best(values, labels, larger=larger, shown=shown)


def _known_as(view: RunView, views: Sequence[RunView]) -> set[str]:
    """Names that a table of pairs may give a run; none where it compares configurations of several seeds instead."""
    own = over_folders(view.run, view.run.configuration)
    if sum(over_folders(each.run, each.run.configuration) == own for each in views) > 1:
        return set()
    return {view.run.name, over_folders(view.run, view.run.name)}


def _mark_times(times: Sequence[Latency | None], labels: Sequence[str]) -> Marks:
    """Mark the shortest of some medians whose interval no other one overlaps; runs of one model may share theirs."""

    def shown(row: int, other: int) -> bool | None:
        a, b = times[row], times[other]
        assert a is not None
        assert b is not None
        if a == b:  # measured once
            return True
        return a.high < b.low if a.has_interval and b.has_interval else None

    values = [None if each is None else each.median for each in times]
    return mark_best(values, labels, larger=False, shown=shown, not_shown="its interval overlaps that of")


def _gain_of_views(view: RunView) -> str | None:
    """Say what the mean over views of an image gave a run; None where there was none."""
    found = view.run.metrics.get("tta")
    if found is None:
        return None
    gain = found["differences"]["accuracy"]
    ends = "" if gain["low"] is None else f" ({gain['low']:+.3f} to {gain['high']:+.3f})"
    views = describe_views(found["views"], found["num_views"])
    return f"{view.label}, {views}: accuracy {gain['difference']:+.3f}{ends}, {gain['verdict']}"


def _cell(run: Run, key: str) -> dict[str, Any]:
    """Give the value by which a column sorts, its text, what stands below it, and why it has no interval."""
    if key == "training_seconds":
        return _plain_cell(run.training_seconds, seconds(run.training_seconds))
    if key == "total_params":
        params = run.record.config.total_params
        return _plain_cell(params, f"{params / 1e6:.2f} M")
    if key.startswith(_OF_VIEWS):
        scores, name = run.metrics.get("tta", {}), key.removeprefix(_OF_VIEWS)
        ends, reason = scores.get("intervals", {}).get(name), scores.get("no_interval", {}).get(name)
        below = interval(ends) or ("no interval" if reason else "")
        return _plain_cell(scores.get(name), score(scores.get(name)), below) | {"no_interval": reason}
    if key in ("flops", "one_image_ms"):
        if run.cost is None:
            return _plain_cell(None, ABSENT)
        if key == "flops":
            return _plain_cell(run.cost.flops, f"{run.cost.flops / 1e9:.2f}")
        latency = run.cost.one_image_ms
        return _plain_cell(latency.median, f"{latency.text} ms", latency.interval_text)
    value, reason = run.metrics.get(key), run.why_no_interval(key)
    below = interval(run.interval(key)) or ("no interval" if reason else "")
    return _plain_cell(value, score(value), below) | {"no_interval": reason}


def _plain_cell(value: float | None, text: str, below: str = "") -> dict[str, Any]:
    return {"value": value, "text": text, "below": below, "no_interval": None}


def cost_table(views: Sequence[RunView]) -> dict[str, Any]:
    """Lay out what each model costs, where that was measured, and of which runs it is not known.

    A row is of a model at a size, which its runs share.
    """
    rows: dict[Any, dict[str, Any]] = {}
    for view in views:
        if (cost := view.run.cost) is not None:
            label = f"{view.folder_label} / {cost.display}" if _are_of_several_folders(views) else cost.display
            rows.setdefault((view.folder_label, cost.setting), {"label": label, "cost": cost})
    reasons: dict[str, list[str]] = {}
    for view in views:
        if (reason := view.run.why_no_cost) is not None:
            reasons.setdefault(reason, []).append(view.label)
    measured = [row["cost"] for row in rows.values()]
    batches = {cost.setting.batch_size for cost in measured}
    return {
        "batch_title": f"Batch of {min(batches)}" if len(batches) == 1 else "A batch",
        "have_own_batches": len(batches) > 1,
        "rows": list(rows.values()),
        "where": list(dict.fromkeys(cost.setting.where for cost in measured)),
        "rounds": list(dict.fromkeys((cost.one_image_ms.rounds, cost.batch_ms.rounds) for cost in measured)),
        "unknown": [(listed(labels), reason) for reason, labels in reasons.items()],
        "marks": _cost_marks([row["cost"] for row in rows.values()], [row["label"] for row in rows.values()]),
    }


def _cost_marks(costs: Sequence[ModelCost], labels: Sequence[str]) -> dict[str, Marks]:
    """Mark the best of each column of the costs; of times and memory where they were measured in one way."""
    marks = {
        "parameters": mark_best([cost.parameters for cost in costs], labels, larger=False),
        "macs": mark_best([cost.macs for cost in costs], labels, larger=False),
    }
    if len({cost.setting.where for cost in costs}) == 1:
        marks["one_image"] = _mark_times([cost.one_image_ms for cost in costs], labels)
    if len({(cost.setting.where, cost.setting.batch_size) for cost in costs}) == 1:
        marks["batch"] = _mark_times([cost.batch_ms for cost in costs], labels)
        marks["memory"] = mark_best([cost.peak_memory_bytes for cost in costs], labels, larger=False)
    return {name: marks.get(name, Marks()) for name in ("parameters", "macs", "one_image", "batch", "memory")}


def _are_of_several_folders(views: Sequence[RunView]) -> bool:
    return len({view.folder_label for view in views}) > 1


def _reasons(cells: Iterable[Mapping[str, Any]]) -> list[str]:
    return [cell["no_interval"] for cell in cells if cell.get("no_interval")]


def _forest(views: Sequence[RunView]) -> dict[str, Any]:
    """Place accuracies and their intervals on one scale, in percent of its width."""
    spans = [view.run.interval("accuracy") or (view.run.metrics["accuracy"],) * 2 for view in views]
    low, high = min(span[0] for span in spans), max(span[1] for span in spans)
    room = max((high - low) * 0.06, 0.005)
    start, end = max(low - room, 0.0), min(high + room, 1.0)

    def place(value: float) -> float:
        return round(100 * (value - start) / (end - start), 3)

    ticks = [(place(tick), tick) for tick in nice_ticks(start, end, 5)]
    rows = [
        {
            "view": view,
            "accuracy": view.run.metrics["accuracy"],
            "interval": view.run.interval("accuracy"),
            "at": place(view.run.metrics["accuracy"]),
            "low": place(span[0]),
            "width": place(span[1]) - place(span[0]),
        }
        for view, span in zip(views, spans, strict=True)
    ]
    return {"ticks": ticks, "rows": rows}


def pairwise_view(folder: RunsFolder, views: Sequence[RunView]) -> dict[str, Any] | None:
    """Tabulate pairwise_comparison.csv, accuracy first; None for a folder of a single run."""
    if len(folder.runs) < 2:
        return None
    folder_label = next(view.folder_label for view in views if view.folder is folder)
    table = folder.table(PAIRWISE_FILE)
    needed = ["run_a", "run_b", "metric", "difference", "low", "high", "verdict"]
    if missing_columns(table, needed):
        return {"folder": folder_label, "rows": [], "groups": [], "unclear": "", "reasons": [], "has_seeds": False}
    assert table is not None
    # Where there are several seeds the table is of configurations.
    names: dict[str, str] = {}
    for view in views:
        if view.folder is folder:
            names |= {view.run.name: view.label, view.run.configuration: _without_seed(view.label)}
    return _lay_out_pairs(table, names, folder_label)


def compared_over_folders(views: Sequence[RunView]) -> pd.DataFrame | None:
    """Compare the runs of several folders, which were tested on the same images, as `compare_runs` does.

    A run is called by its folder and name. None where a run has no logits.
    """
    if not all(view.run.has_predictions for view in views):
        return None
    runs = []
    for run in (view.run for view in views):
        name, configuration = over_folders(run, run.name), over_folders(run, run.configuration)
        runs.append(dataclasses.replace(run.compared, name=name, configuration=configuration))
    return compare_runs(runs)


def pairs_between(table: pd.DataFrame, views: Sequence[RunView]) -> dict[str, Any]:
    """Lay out those of a table of `compared_over_folders` that are of two folders, accuracy first."""
    labels: dict[str, str] = {}
    folders: dict[str, str] = {}
    for view in views:
        name, configuration = (over_folders(view.run, each) for each in (view.run.name, view.run.configuration))
        labels |= {name: view.label, configuration: _without_seed(view.label)}
        folders |= {name: view.folder_label, configuration: view.folder_label}
    between = table[table["run_a"].map(folders) != table["run_b"].map(folders)]
    return _lay_out_pairs(between, labels, "between the folders", are_of_two_folders=True)


def _without_seed(label: str) -> str:
    return label.partition(", seed ")[0]


def _lay_out_pairs(
    table: pd.DataFrame, names: Mapping[str, str], title: str, *, are_of_two_folders: bool = False
) -> dict[str, Any]:
    """Lay out a table of `compare_runs`, accuracy first; names: the labels of its runs and configurations."""
    rows = []
    for row in table.to_dict("records"):
        a, b = names.get(str(row["run_a"])), names.get(str(row["run_b"]))
        if a is None or b is None:
            continue
        rows.append(
            row
            | {
                "a_label": a,
                "b_label": b,
                "metric_name": METRIC_WORDS.get(str(row["metric"]), str(row["metric"])),
                "is_difference": row["verdict"] != NO_DIFFERENCE,
                "words": _words(str(row["verdict"]), a, b),
                "p": row.get("mcnemar_p_holm"),
            }
        )
    rows.sort(key=lambda row: str(row["metric"]))
    accuracy, others = ([row for row in rows if (row["metric"] == "accuracy") is first] for first in (True, False))
    groups = [("", accuracy), ("Macro F1 and ECE, run against run", others)]
    return {
        "folder": title,
        "rows": rows,
        "groups": [each for each in groups if each[1]],
        "unclear": _unclear(
            accuracy, "configurations" if "num_seeds" in table else "runs", are_of_two_folders=are_of_two_folders
        ),
        "reasons": list(dict.fromkeys(row["reason"] for row in rows if isinstance(row.get("reason"), str))),
        "has_seeds": "num_seeds" in table,
    }


def _unclear(pairs: Sequence[Mapping[Any, Any]], what: str, *, are_of_two_folders: bool = False) -> str:
    """Say which pairs show no difference in test accuracy, by name where they are few; "" where all show one.

    are_of_two_folders: whether pairs within a folder are not among them.
    """
    unclear = [pair for pair in pairs if not pair["is_difference"]]
    if not unclear:
        return ""
    accuracies = {pair[f"{side}_label"]: pair.get(side, float("nan")) for pair in pairs for side in ("a", "b")}
    if len(unclear) == len(pairs) and len(accuracies) > 2:
        any_two = "any two of different folders among" if are_of_two_folders else "any two of"
        return f"In test accuracy there is no difference shown between {any_two} the {len(accuracies)} {what}."
    if len(unclear) <= _MOST_PAIRS:
        named = "; nor between ".join(f"{pair['a_label']} and {pair['b_label']}" for pair in unclear)
        return f"In test accuracy there is no difference shown between {named}."
    best = max(accuracies, key=lambda label: accuracies[label])
    rivals = [
        pair["b_label"] if pair["a_label"] == best else pair["a_label"]
        for pair in unclear
        if best in (pair["a_label"], pair["b_label"])
    ]
    leads = f"{best}, which has the highest, is not shown to differ from {listed(rivals)}" if rivals else ""
    others = "those of the other folders" if are_of_two_folders else "the others"
    leads = leads or f"{best}, which has the highest, is shown to be better than each of {others}"
    return (
        f"In test accuracy there is no difference shown in {len(unclear)} of the {len(pairs)} pairs of {what}. {leads}."
    )


def _words(verdict: str, a: str, b: str) -> str:
    return {"a is better": f"{a} is better", "b is better": f"{b} is better"}.get(verdict, verdict)


def shared_nouns(folders: Sequence[RunsFolder]) -> tuple[str, str]:
    """Say what the classes of some folders are called, one and several: by their own noun where all have the same."""
    nouns = {(folder.facts.noun, folder.facts.plural) for folder in folders}
    return nouns.pop() if len(nouns) == 1 else ("class", "classes")


MOST_IN_MATRIX = 40
"""Classes of a confusion matrix that can still be read on a page."""


def confusion_data(views: Sequence[RunView], noun: str, plural: str) -> dict[str, Any]:
    """Pack the confusion counts of every run for the explorer: the classes, and (true, predicted, images) a cell.

    shown: the labels of the matrix, all of them up to MOST_IN_MATRIX.
    """
    runs = []
    for view in views:
        if not view.run.has_predictions:
            continue
        counts = view.run.confusion
        cells = [[int(t), int(p), int(counts[t, p])] for t, p in np.argwhere(counts)]
        runs.append(
            {
                "id": view.id,
                "label": view.label,
                "folder": view.run.folder.relative_to(view.folder.folder).as_posix(),
                "classes": view.folder.class_names,
                "cells": cells,
                "shown": most_confused(counts, MOST_IN_MATRIX).tolist(),
            }
        )
    return {"noun": noun, "plural": plural, "picture": CONFUSION_COUNTS_FIGURE, "runs": runs}
