"""What an experiment cannot show, from what is known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dogs_accel.datasets import published_about
from dogs_accel.eda.files import DUPLICATES_FILE, NOT_LOOKED_FOR
from dogs_accel.report.formats import listed
from dogs_accel.results.folder import RunsFolder
from dogs_accel.results.reading import missing_columns
from dogs_accel.runtime.terminal import count_text
from dogs_accel.training.phases import Phase

_SHOWN = 5
"""Classes that are named of many."""
_STARTS = {"none": "random", "file": "of a file"}
"""Of kinds of weights that were not published with the model."""
_CROSSED = {("train", "test"): "training and test", ("val", "test"): "validation and test",
            ("train", "val"): "training and validation"}  # fmt: skip
"""Splits that should have no picture in common; the second one is judged by pictures that the first knows."""
_NAMES = {"test": "test image", "val": "validation image"}


def limits(folder: RunsFolder) -> list[tuple[str, str]]:
    """List what a reader must not conclude: a heading and a sentence each."""
    return [
        *_data_limits(folder),
        ("One data set", "What holds for these pictures need not hold for others."),
        *_untested(folder),
        *_recipes(folder),
        ("Seeds", _seeds(folder)),
        _duplicates(folder),
        ("Hardware", f"Times are of {folder.device}, of one run each, validation included; others will differ."),
    ]


def _data_limits(folder: RunsFolder) -> list[tuple[str, str]]:
    return [*([(folder.facts.notice_title, folder.notice)] if folder.notice else []), *_weights(folder)]


def _weights(folder: RunsFolder) -> list[tuple[str, str]]:
    kinds = [run.record.kind_of_weights for run in folder.runs]
    if set(kinds) == {"none"}:
        return [("Random weights", "No backbone was pretrained, so nothing here is about transfer learning.")]
    of_file = [run.title for run, kind in zip(folder.runs, kinds, strict=True) if kind == "file"]
    others = [run.title for run, kind in zip(folder.runs, kinds, strict=True) if kind in ("file", "none")]
    found: list[tuple[str, str]] = []
    if len(others) < len(kinds):
        published = published_about(folder.facts.published)
        but_for = f", but for {'; '.join(others)}" if others else ""
        usual = (
            "Pretraining",
            f"Backbones were pretrained{but_for}, on images among which there may be test images of these data, or "
            "ones that look like them; this was not looked for. The accuracy on new photos may be lower.",
        )
        found += [usual] if published is None or not published.caveats else published.caveats
    if of_file:
        whose = listed(of_file) if len(of_file) < len(kinds) else "Every run"
        found.append(
            (
                "Weights of a file",
                f"{whose} began with weights of a file. What they were trained on is not known here: there may be test "
                "images of these data among it.",
            )
        )
    return found


def _untested(folder: RunsFolder) -> list[tuple[str, str]]:
    """Name the classes that the test split has no image of."""
    table = folder.runs[0].classes
    if missing_columns(table, ["class_name", "support"]):
        return []
    assert table is not None
    names = table.loc[table["support"].astype(float) == 0, "class_name"].tolist()
    if not names:
        return []
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    shown = ", ".join(names[:_SHOWN])
    return [("Untested", f"No test image of {shown}{more}: how well they are recognised is not known.")]


def _recipes(folder: RunsFolder) -> list[tuple[str, str]]:
    """Name what differs between the runs beside the models; nothing where nothing does."""
    found: dict[str, list[str]] = {
        "training recipes": [], "learning rates": [], "epochs": [], "weights at the start": [],
        "augmentation of heads": [], "what trains": [],
    }  # fmt: skip
    for run in folder.runs:
        phases = run.record.config.phases
        found["training recipes"].append(str(run.record.train_recipe.get("name", "unknown")))
        found["learning rates"].append(" then ".join(f"{phase['lr']:g}" for phase in phases))
        found["epochs"].append(" + ".join(str(phase["epochs"]) for phase in phases))
        found["weights at the start"].append(_STARTS.get(run.record.kind_of_weights, "pretrained"))
        is_cached = run.record.cache_features and any(phase["mode"] == "head_only" for phase in phases)
        found["augmentation of heads"].append("none, on cached features" if is_cached else "as the recipe")
        found["what trains"].append(" then ".join(map(_without_rates, phases)))
    differ = {what: list(dict.fromkeys(values)) for what, values in found.items() if len(set(values)) > 1}
    if not differ:
        return []
    shown = "; ".join(f"{what} ({_either(values)})" for what, values in differ.items())
    return [
        ("Recipes differ", f"The runs differ in more than the models: {shown}. A gap is that of whole configurations.")
    ]


def _either(values: Sequence[str]) -> str:
    more = f" or {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return " or ".join(values[:_SHOWN]) + more


def _without_rates(phase: Mapping[str, Any]) -> str:
    """A phase in words, but for its learning rate and its epochs."""
    usual = {"name": phase.get("name"), "mode": phase["mode"], "epochs": phase["epochs"], "lr": phase["lr"]}
    usual["weight_decay"] = Phase.weight_decay
    others = [f"{name}={value}" for name, value in phase.items() if usual.get(name) != value]
    return phase["mode"] + (f" with {', '.join(others)}" if others else "")


def _seeds(folder: RunsFolder) -> str:
    seeds = sorted({run.seed for run in folder.runs})
    if len(seeds) == 1:
        return (
            f"One seed ({seeds[0]}): the intervals say what other test images would change, not what another start "
            "of training would."
        )
    return f"{len(seeds)} seeds on one split: what another split would change is not measured."


def _duplicates(folder: RunsFolder) -> tuple[str, str]:
    table = folder.table(DUPLICATES_FILE)
    if table is None or not {"group", "split"} <= set(table.columns):
        return (
            "Repeated pictures",
            f"{DUPLICATES_FILE} is absent, so it is not known whether test pictures were trained on.",
        )
    if missing_columns(table, ["group"]):
        return (
            "Repeated pictures",
            f"No picture was found more than once, by content or by its looks. {NOT_LOOKED_FOR}.",
        )
    splits = table.groupby("group")["split"].agg(set)
    alike = "of pictures that are the same file or alike by their looks"
    found: list[str] = []
    for (known, judged), words in _CROSSED.items():
        shared = [group for group, names in splits.items() if {known, judged} <= names]
        images = int(((table["split"] == judged) & table["group"].isin(shared)).sum())
        if shared:
            kind = "" if found else f" {alike}"
            found.append(
                f"{count_text(len(shared), 'group')}{kind} across {words}, with {count_text(images, _NAMES[judged])}"
            )
    if not found:
        return (
            "Repeated pictures",
            f"{count_text(len(splits), 'group')} {alike}, none across training, validation and test. {NOT_LOOKED_FOR}.",
        )
    return (
        "Repeated pictures",
        f"{'; '.join(found)} ({DUPLICATES_FILE}). Pictures that look alike may still be different ones. "
        f"{NOT_LOOKED_FOR}. Nothing was taken out.",
    )
