"""The evidence of the five stations, in the published order: x, T(x), z, g(z), output."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from dogs_accel.datasets.splits import describe_carving
from dogs_accel.eda.files import (
    AUGMENTED_FIGURE,
    BAD_IMAGES_FILE,
    BRIGHTEST_FIGURE,
    CHANNELS_FIGURE,
    DARKEST_FIGURE,
    DISTRIBUTIONS_FIGURE,
    METADATA_FILE,
    NORMALISATION_FILE,
    QUALITY_FIGURE,
    QUALITY_SUMMARY_FILE,
    SAMPLES_FIGURE,
    SIZES_FIGURE,
    SPLIT_TABLE_FILE,
    quality_boxplots_file,
)
from dogs_accel.evaluation.galleries import MISCLASSIFIED_FIGURE, MISCLASSIFIED_FILE, PREDICTION_GRID_FIGURE
from dogs_accel.evaluation.quality_error import QUALITY_ERROR_FIGURE, QUALITY_ERROR_FILE, quality_trends
from dogs_accel.explain.run import EXPLAINED_FILE, EXPLANATIONS_FILE, EXPLANATIONS_FOLDER, GALLERY, picture_name
from dogs_accel.models.architecture.write import ARCHITECTURE_FIGURE
from dogs_accel.report.charts import Bin, Line, line_chart, reliability_chart
from dogs_accel.report.formats import ABSENT, interval, score
from dogs_accel.report.pictures import MAX_WIDTH_PX, Picture, embed_picture
from dogs_accel.report.summary import RunView
from dogs_accel.results.figures import CURVES
from dogs_accel.results.folder import RunsFolder
from dogs_accel.results.layout import (
    CALIBRATION_FIGURE,
    CALIBRATION_FILE,
    CLUSTERS_FILE,
    CONFUSION_SHARES_FIGURE,
    CONFUSIONS_FILE,
    EDA_FOLDER,
)
from dogs_accel.results.reading import missing_columns

_TIMES = "\N{MULTIPLICATION SIGN}"
_LARGE_PX = 2400
"""Of a confusion matrix, whose classes must still be read where there are 120."""
_THUMBNAIL_PX, _MAX_THUMBNAILS = 208, 24
_PARTS = (
    ("features", "caching features"),
    ("data_wait", "waiting for data"), ("transfer", "transfer"), ("forward", "forward"), ("backward", "backward"),
    ("graph", "CUDA graph"), ("optimizer", "optimiser"), ("other", "other"), ("validation", "validation"),
)  # fmt: skip
_SHOWN_MEANS = {
    "drop_hottest": "Probability lost without the hottest parts",
    "drop_random": "Without random parts",
    "verdict": "What that shows",
    "heat_in_box": "Heat inside the annotated box",
    "box_share": "Crop inside the box",
}
_BIN = ("lower", "upper", "count", "confidence", "accuracy", "accuracy_low", "accuracy_high")
"""Columns of calibration_bins.csv that make a bin."""


def data_station(folder: RunsFolder) -> dict[str, Any]:
    """x: the pictures, their splits and their quality."""
    figures, absent = _figures(folder)
    bad = folder.table(BAD_IMAGES_FILE)
    return {
        "layout": folder.facts.layout,
        "left_out": folder.facts.left_out_text,
        "carving": _carving(folder),
        "splits": _records(folder.table(f"{EDA_FOLDER}/{SPLIT_TABLE_FILE}")),
        "quality": _records(folder.table(f"{EDA_FOLDER}/{QUALITY_SUMMARY_FILE}")),
        "preview": _preview(folder.table(METADATA_FILE)),
        "num_bad": None if bad is None else len(bad),
        "figures": figures,
        "absent": absent,
    }


def _carving(folder: RunsFolder) -> str | None:
    """Say which splits are the data's own and how the others were made; None where that was not recorded."""
    table, settings = folder.table(METADATA_FILE), folder.config
    if missing_columns(table, ["official_split"]) or not {"seed", "val_ratio"} <= set(settings):
        return None
    assert table is not None
    # An older version had no test_ratio, and no data without a test part.
    known = {key: settings[key] for key in ("seed", "val_ratio", "test_ratio") if key in settings}
    return describe_carving(table["official_split"].unique().tolist(), **known)


def _preview(table: pd.DataFrame | None) -> list[dict[str, Any]]:
    columns = ["image_id", "class_name", "official_split", "width", "height", "brightness_mean", "contrast_std",
               "saturation_mean"]  # fmt: skip
    return [] if missing_columns(table, columns) else _records(table[columns].head(3))  # type: ignore[index]


def _figures(folder: RunsFolder) -> tuple[list[tuple[Picture, str]], list[str]]:
    """Give the figures of the data with their captions, and the names of those that are absent."""
    noun, plural = folder.facts.noun, folder.facts.plural
    captions = {
        SAMPLES_FIGURE: f"One picture a {noun}, of twelve {plural} at most, before any preprocessing.",
        DISTRIBUTIONS_FIGURE: f"Images of each official split, and of the {plural}.",
        SIZES_FIGURE: "Width, height and aspect ratio, before any resizing.",
        QUALITY_FIGURE: "Brightness, contrast and saturation of whole images.",
        CHANNELS_FIGURE: "Colour: means of the images, and of the training pixels.",
        quality_boxplots_file(noun): f"Brightness and saturation of the largest {plural}.",
        DARKEST_FIGURE: "The darkest images.",
        BRIGHTEST_FIGURE: "The brightest images.",
    }
    figures, absent = [], []
    for name, caption in captions.items():
        picture = embed_picture(folder.folder / EDA_FOLDER / name, folder.folder, caption)
        if picture is None:
            absent.append(f"{EDA_FOLDER}/{name}")
        else:
            figures.append((picture, caption))
    return figures, absent


def _records(table: pd.DataFrame | None) -> list[dict[str, Any]]:
    return (
        [] if table is None else [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
    )


def input_station(folder: RunsFolder, views: Sequence[RunView]) -> dict[str, Any]:
    """T(x): the recipes, step by step, what loads them, and a batch as the model gets it."""
    # Recipes of one name may differ: mean and std are those of the model's weights.
    recipes: dict[tuple[str, ...], list[str]] = {}
    for view in views:
        for key in ("train_recipe", "eval_recipe"):
            recipe = getattr(view.run.record, key)
            if recipe:
                shown = (f"{recipe['name']}, {recipe['crop']} px", *recipe_steps(recipe))
                runs = recipes.setdefault(shown, [])
                if view.label not in runs:  # a run may train by the recipe that it is judged by
                    runs.append(view.label)
    normalisation = folder.content(NORMALISATION_FILE)
    batch = folder.folder / EDA_FOLDER / AUGMENTED_FIGURE
    record = views[0].run.record
    return {
        "recipes": [{"name": name, "steps": steps, "runs": runs} for (name, *steps), runs in recipes.items()],
        "batch": embed_picture(batch, folder.folder, "Training pictures as the model gets them"),
        "normalisation": None if normalisation is None else normalisation.get("train_pixels"),
        "loaders": record.loaders,
        "batch_size": record.config.batch_size,
    }


def recipe_steps(recipe: Mapping[str, Any]) -> list[str]:
    """Write a recipe as the steps that it does, in their order."""
    steps = []
    resize = recipe.get("resize")
    if isinstance(resize, list):
        steps.append(f"squash to {resize[0]} {_TIMES} {resize[1]} ({recipe.get('interpolation', 'bilinear')})")
    elif resize is not None:
        steps.append(f"shorter side to {resize} px ({recipe.get('interpolation', 'bilinear')})")
    crop = recipe["crop"]
    if padding := recipe.get("padding"):
        steps.append(f"pad by {padding} px")
    if area := recipe.get("random_area"):
        steps.append(f"random crop of {area[0]:g} to {area[1]:g} of the area, to {crop} {_TIMES} {crop}")
    else:
        place = "random" if recipe.get("random_crop") else recipe.get("crop_place", "centre").replace("_", " ")
        steps.append(f"{place} crop {crop} {_TIMES} {crop}")
    if recipe.get("flip"):
        steps.append(f"flip with p = {recipe['flip']:g}")
    if randaugment := recipe.get("randaugment"):
        steps.append(f"RandAugment, {randaugment[0]} operations of magnitude {randaugment[1]}")
    jitter = [
        f"{name} {recipe[name]:g}" for name in ("brightness", "contrast", "saturation", "hue") if recipe.get(name)
    ]
    jitter = [f"jitter {', '.join(jitter)}"] if jitter else []
    degrees = recipe.get("rotation_deg")
    rotation = [f"rotate by up to {degrees:g}° (corners black)"] if degrees else []
    steps += [*jitter, *rotation] if recipe.get("rotation_after_jitter") else [*rotation, *jitter]
    if recipe.get("grayscale"):
        steps.append(f"lose the colours with p = {recipe['grayscale']:g}")
    mean, std = (", ".join(f"{value:g}" for value in recipe[name]) for name in ("mean", "std"))
    steps.append(f"normalise by mean {mean} and std {std}")
    if recipe.get("erasing"):
        steps.append(f"erase a rectangle with p = {recipe['erasing']:g}")
    return steps


def representation_station(folder: RunsFolder, views: Sequence[RunView]) -> list[dict[str, Any]]:
    """z: the backbone of each run and what its answer rests on."""
    architectures = _architectures(folder, views)
    return [
        {
            "view": view,
            "weights": view.run.record.weights,
            "params": view.run.record.config.total_params,
            "gallery_file": _gallery_file(view),
            "gallery": _gallery(folder, view),
            "summary": _explanation_summary(view),
            "thumbnails": _thumbnails(folder, view),
            "architecture": architectures.get(view.label),
        }
        for view in views
    ]


def _architectures(folder: RunsFolder, views: Sequence[RunView]) -> dict[str, Picture]:
    """Embed the picture of each network once, by the label of its first run."""
    found: dict[str, Picture] = {}
    shown = set()
    for view in views:
        config = view.run.record.config
        network = (config.model_name, config.image_size)
        if network in shown:
            continue
        alt = f"{config.model_name}: the stages of the network, with what each puts out and costs"
        picture = embed_picture(view.run.folder / ARCHITECTURE_FIGURE, folder.folder, alt)
        if picture is not None:
            found[view.label] = picture
            shown.add(network)
    return found


def _gallery_file(view: RunView) -> str:
    """Name the gallery of the method with which the run was explained, or both where it does not say."""
    method = (view.run.content(EXPLANATIONS_FILE) or {}).get("method")
    return GALLERY.get(str(method), " or ".join(GALLERY.values()))


def _gallery(folder: RunsFolder, view: RunView) -> Picture | None:
    for name in GALLERY.values():
        picture = embed_picture(view.run.folder / name, folder.folder, f"{view.label}: where the evidence lies")
        if picture is not None:
            return picture
    return None


def _explanation_summary(view: RunView) -> dict[str, Any]:
    """Lay out explanations.json: lines of text, and the means of each method side by side."""
    content = view.run.content(EXPLANATIONS_FILE) or {}
    methods = content.get("methods")
    if not isinstance(methods, dict):
        lines = [(key.replace("_", " "), text) for key, text in _flatten("", content)]
        return {"lines": lines, "methods": [], "rows": []}
    rows = [
        (words, [dict(_flatten("", {key: means.get(key)})).get(key, ABSENT) for means in methods.values()])
        for key, words in _SHOWN_MEANS.items()
    ]
    lines = [(key, str(content[key])) for key in ("library", "shows") if content.get(key)]
    if grid := content.get("grid"):
        lines.append(("resolution", f"{grid[0]} by {grid[1]} cells; nothing finer can be seen"))
    return {
        "lines": lines,
        "methods": [method.replace("_", " ") for method in methods],
        "rows": [row for row in rows if set(row[1]) != {ABSENT}],
    }


def _flatten(name: str, value: Any) -> list[tuple[str, str]]:
    """Name each leaf by its path; a mean with its low and high, or a mean and an interval, are one leaf."""
    if isinstance(value, Mapping):
        middle = next((key for key in ("mean", "value") if key in value), None)
        ends = value.get("interval") or ([value["low"], value["high"]] if {"low", "high"} <= set(value) else None)
        if middle is not None and ends and None not in (value[middle], *ends):
            return [(name, f"{score(value[middle], 3)} ({interval(ends, 3)})")]
        return [leaf for key, each in value.items() for leaf in _flatten(f"{name} {key}".strip(), each)]
    if isinstance(value, float):
        return [(name, score(value, 3))]
    if isinstance(value, list):
        return [(name, ", ".join(score(each, 3) if isinstance(each, float) else str(each) for each in value))]
    return [] if value is None else [(name, str(value))]


def _thumbnails(folder: RunsFolder, view: RunView) -> list[dict[str, Any]]:
    table = view.run.table(EXPLAINED_FILE)
    if missing_columns(table, ["id", "group", "true_class", "pred_class", "confidence"]):
        return []
    assert table is not None
    found: list[dict[str, Any]] = []
    pictures: dict[str, Picture | None] = {}
    # Of each image one picture shows every method; an image may be in two groups.
    for row in table.drop_duplicates(["id", "group"]).head(_MAX_THUMBNAILS).to_dict("records"):
        name = picture_name(str(row["id"]))
        true, pred = row["true_class"], row["pred_class"]
        alt = str(true) if true == pred else f"{true}, taken for {pred}"
        if name not in pictures:
            path, content = (
                view.run.folder / EXPLANATIONS_FOLDER / name,
                view.run.binary(f"{EXPLANATIONS_FOLDER}/{name}"),
            )
            pictures[name] = embed_picture(path, folder.folder, alt, _THUMBNAIL_PX, content)
        if (picture := pictures[name]) is not None:
            found.append({"picture": picture, "anchor": f"{view.id}-x{len(found)}", **row})
    return found


def head_station(views: Sequence[RunView]) -> dict[str, Any]:
    """g(z): schedules, training curves, where the time went, and the time to an accuracy."""
    goals = [goal for goal in _goals(views) if any(_seconds_to(view, goal) is not None for view in views)]
    return {
        "curves": _curves(views),
        "mixed": _by_reason((view.label, view.run.record.training_scores_note) for view in views if _mixes(view)),
        "absent_histories": [view.label for view in views if view.run.history is None],
        "phases": [(view, view.run.record.config.phases) for view in views],
        "profiles": [_profile(view) for view in views if view.run.record.profile],
        "parts": _PARTS,
        "goals": [f"{float(goal):g}" for goal in goals],
        "times": [(view, [_seconds_to(view, goal) for goal in goals]) for view in views],
    }


def _by_reason(said: Iterable[tuple[str, Any]]) -> list[tuple[list[str], str]]:
    """Gather the runs of which the same is said."""
    labels: dict[str, list[str]] = {}
    for label, reason in said:
        labels.setdefault(str(reason), []).append(label)
    return [(names, reason) for reason, names in labels.items()]


def _mixes(view: RunView) -> bool:
    return view.run.record.training_scores_note is not None


def _goals(views: Sequence[RunView]) -> list[str]:
    goals = {goal for view in views for goal in view.run.record.profile.get("seconds_to_val_accuracy", {})}
    return sorted(goals, key=float)


def _seconds_to(view: RunView, goal: str) -> float | None:
    found = view.run.record.profile.get("seconds_to_val_accuracy", {}).get(goal)
    return None if found is None else float(found)


def _profile(view: RunView) -> dict[str, Any]:
    phases = []
    for phase in view.run.record.profile["phases"]:
        total = sum(phase["parts_s"].values()) or 1.0
        shares = [
            (key, name, 100 * phase["parts_s"][key] / total, phase["parts_s"][key])
            for key, name in _PARTS
            if phase["parts_s"].get(key)
        ]
        phases.append({**phase, "shares": shares})
    return {"view": view, "phases": phases, "memory_mib": view.run.record.profile.get("peak_memory_mib")}


def _curves(views: Sequence[RunView]) -> dict[str, Any]:
    """Draw the learning curves of all runs, and their learning rates, over the epochs of all phases.

    Learning rates that are all 0, as after a single epoch that a schedule ends, are left out.
    """
    drawn = {view: view.run.history for view in views}
    pairs = (("train_loss", "val_loss"), ("train_acc", "val_acc"))
    limits = {column: _limits(drawn.values(), pair) for pair in pairs for column in pair}
    charts = []
    for title, column in (*CURVES, ("Learning rate at the end of each epoch", "lr")):
        lines = [
            Line(
                view.label + ", mixed images" * (column.startswith("train") and _mixes(view)),
                [(x, y) for x, y in zip(history["epoch_total"], history[column], strict=True)],
                view.colour,
                view.marker,
                _ends_of_phases(history),
            )
            for view, history in drawn.items()
            if history is not None and not missing_columns(history, ["epoch_total", column])
        ]
        if column == "lr" and not any(rate for line in lines for _, rate in line.points):
            continue  # each run's one epoch ended at 0, which says nothing
        low, high = limits.get(column, (0.0, None))
        charts.append((title, line_chart(title, lines, x_label="epoch, over all phases", y_low=low, y_high=high)))
    return {
        "charts": [(title, chart) for title, chart in charts if chart],
        "views": [view for view, history in drawn.items() if history is not None],
        "have_phases": any(history is not None and _ends_of_phases(history) for history in drawn.values()),
    }


def _limits(histories: Iterable[pd.DataFrame | None], columns: Sequence[str]) -> tuple[float | None, float | None]:
    """Span what training and validation have, so that their curves can be compared."""
    values = [
        float(value)
        for history in histories
        if history is not None
        for column in columns
        if column in history
        for value in history[column]
        if math.isfinite(value)
    ]
    return (min(values), max(values)) if values else (None, None)


def _ends_of_phases(history: pd.DataFrame) -> list[float]:
    """Name the last epoch of each phase but the last."""
    if missing_columns(history, ["stage", "epoch_total"]):
        return []
    return [float(epoch) for epoch in history.groupby("stage", sort=False)["epoch_total"].max().iloc[:-1]]


def output_station(folder: RunsFolder, views: Sequence[RunView]) -> dict[str, Any]:
    """Output: calibration, confusion, mistakes, and each class."""
    calibration = [_calibration(folder, view) for view in views]
    return {
        "calibration": calibration,
        "no_temperature": _by_reason(
            (each["view"].label, each["temperature"]["reason"])
            for each in calibration
            if each["temperature"] and not each["has_temperature"]
        ),
        "classes": _classes(views),
        "clusters": _clusters(folder, views),
        "mistakes": [_mistakes(folder, view) for view in views],
    }


def _mistakes(folder: RunsFolder, view: RunView) -> dict[str, Any]:
    quality = view.run.table(QUALITY_ERROR_FILE)
    needed = ["quantity", "tenth", "num_images", "accuracy", "accuracy_low", "accuracy_high"]
    is_measured = not missing_columns(quality, needed)
    return {
        "view": view,
        "gallery": _run_picture(folder, view, MISCLASSIFIED_FIGURE, "the most confident mistakes"),
        "grid": _run_picture(folder, view, PREDICTION_GRID_FIGURE, "answers on test images, balanced over the classes"),
        "confusion": _run_picture(folder, view, CONFUSION_SHARES_FIGURE, "confusion matrix", _LARGE_PX),
        "quality": _run_picture(folder, view, QUALITY_ERROR_FIGURE, "accuracy by image quality"),
        "quality_rows": _quality_rows(quality) if quality is not None and is_measured else [],
        "trends": quality_trends(quality) if quality is not None and is_measured else [],
        "listed": _records(view.run.table(MISCLASSIFIED_FILE)),
        "top": _records(view.run.table(CONFUSIONS_FILE))[:8],
        "all_right": view.run.metrics["accuracy"] == 1,
    }


def _run_picture(
    folder: RunsFolder, view: RunView, name: str, what: str, max_width_px: int = MAX_WIDTH_PX
) -> Picture | None:
    return embed_picture(view.run.folder / name, folder.folder, f"{view.label}: {what}", max_width_px)


def _quality_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Accuracy of the lowest and the highest tenth of each quantity."""
    rows = []
    for quantity, group in table.groupby("quantity", sort=False):
        ordered = group.sort_values("tenth")
        rows.append({"quantity": quantity, "lowest": ordered.iloc[0].to_dict(), "highest": ordered.iloc[-1].to_dict()})
    return rows


def _calibration(folder: RunsFolder, view: RunView) -> dict[str, Any]:
    """Reliability before and after temperature, from calibration_bins.csv, by the number of bins."""
    table = view.run.table(CALIBRATION_FILE)
    metrics = view.run.metrics
    fitted = metrics.get("temperature")
    found: dict[str, Any] = {
        "view": view,
        "charts": {},
        "temperature": fitted,
        "has_temperature": fitted is not None and fitted["value"] is not None,
        "before": metrics,
        "after": metrics.get("calibrated"),
        "picture": None,
    }
    if missing_columns(table, ["bins", "temperature", *_BIN]):
        return found | {"picture": _run_picture(folder, view, CALIBRATION_FIGURE, "reliability diagram")}
    assert table is not None
    if fitted is not None and fitted["value"] is None:  # an earlier version divided by it all the same
        table = table[table["temperature"] == 1]
    # Rows are in their order: as trained, then at the temperature.
    for (num_bins, divisor), group in table.groupby(["bins", "temperature"], sort=False):
        bins = [
            Bin(count=int(row["count"]), **{name: float(row[name]) for name in _BIN if name != "count"})
            for row in group.to_dict("records")
        ]
        title = f"{'as trained' if divisor == 1 else f'temperature {score(divisor, 3)}'}, {num_bins} bins"
        chart = reliability_chart(f"{view.label}, {title}", bins, view.colour)
        found["charts"].setdefault(num_bins, []).append((title, chart))
    return found


def _classes(views: Sequence[RunView]) -> dict[str, Any] | None:
    """F1 of each class in each run, one row a class; a class without a test image has none."""
    tables = [(view, view.run.classes.set_index("class_name")) for view in views if view.run.classes is not None]
    if not tables:
        return None
    names = list(dict.fromkeys(str(name) for _, table in tables for name in table.index))
    rows = []
    for name in names:
        present = [table.loc[name] if name in table.index else None for _, table in tables]
        scores = [float(row["f1-score"]) if row is not None and row["support"] else None for row in present]
        known = [value for value in scores if value is not None]
        support = next(int(row["support"]) for row in present if row is not None)
        spread = max(known) - min(known) if known else None
        cells = [(value, bool(spread) and value == max(known)) for value in scores]
        rows.append({"name": name, "support": support, "cells": cells, "spread": spread})
    return {"views": [view for view, _ in tables], "rows": rows}


def _clusters(folder: RunsFolder, views: Sequence[RunView]) -> dict[str, list[dict[str, Any]]] | None:
    """List the largest groups of each run, which may have none; None where the table is absent."""
    table = folder.table(CLUSTERS_FILE)
    if table is None or not {"run", "classes", "num_confusions", "share_of_mistakes"} <= set(table.columns):
        return None
    return {view.label: _records(table[table["run"] == view.run.name].head(6)) for view in views}
