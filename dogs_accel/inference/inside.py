"""The look inside a finished run's model, on any photos: the files of `dogs-accel explain`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from dogs_accel.eda.files import read_metadata
from dogs_accel.explain.cells import UnexplainableError
from dogs_accel.explain.drawings import Pixels, crop_pixels
from dogs_accel.explain.inside.channels import choose_sample, confused_pair
from dogs_accel.explain.inside.figures import Exciting, channels_figure, filters_figure, maps_figure, units_figure
from dogs_accel.explain.inside.filters import first_layer
from dogs_accel.explain.inside.inspection import (
    InspectedStage,
    SampleFacts,
    ShownImages,
    inspect_stages,
    write_feature_maps,
)
from dogs_accel.explain.inside.saliency import DEFINITIONS
from dogs_accel.explain.inside.stage_maps import MOST_STAGES
from dogs_accel.explain.inside.units import NUM_UNITS, UnitPictures, show_units
from dogs_accel.explain.run import picture_name
from dogs_accel.inference.trained import TrainedModel
from dogs_accel.plots import save_figure
from dogs_accel.runtime.arguments import did_you_mean
from dogs_accel.runtime.files import write_csv, write_json
from pipelines import BadImageError
from pipelines.decoding.pil import decode_rgb
from pipelines.torchloader import resize_image

INSIDE_FILE, EXCITING_FILE, FIRST_LAYER_FIGURE = "explain.json", "channels.csv", "first_layer.png"
MAPS_FOLDER, CHANNELS_FOLDER, UNITS_FOLDER = "maps", "channels", "units"
MOST_PHOTOS = 24
_IMAGES_A_FIGURE = 4
_NUM_EXCITING = 6
"""Images a channel."""
_CHANNELS_OF_EACH_KIND = 4


@dataclass(frozen=True, kw_only=True)
class InsideSettings:
    """What is looked at."""

    classes: Sequence[str] | None = None
    """The pair that channels tell apart; None takes the one that the run confuses most."""
    num_images: int = 128
    """Test images on which channels are chosen, at most."""
    all_stages: bool = False
    seed: int = 0


@dataclass(kw_only=True)
class LookedInside:
    """What came of it."""

    written: list[Path] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """One line each: photos that cannot be read, and what the model does not have."""


def check_photos(paths: Sequence[str]) -> None:
    """Raise ValueError for more photos than pictures can show."""
    if len(paths) > MOST_PHOTOS:
        raise ValueError(f"images: got {len(paths)}, expected at most {MOST_PHOTOS}")


def look_inside(
    trained: TrainedModel, results: Path, paths: Sequence[str], out: Path, settings: InsideSettings
) -> Iterator[str | LookedInside]:
    """Look at photos through a run's model, in float32, and write what is seen into a folder.

    results: the folder of the run's results, whose test images choose the channels. Yields lines that say what was
    found, and what came of it last. What a model cannot show is a failure, and the rest is written; so is the lack of
    test images, or of their logits. Raises ValueError for unknown classes.
    """
    done = LookedInside()
    table = read_metadata(results).splits
    pair = _named_pair(trained, settings.classes)
    sample = _sample(trained, table, pair, settings)
    if isinstance(sample, str):
        done.failures.append(f"{sample}, so separating channels and what excites channels are left out")
        sample_paths, facts = list[str](), None
    else:
        sample_paths, facts = sample
        yield _describe_sample(facts)
    shown = _read_photos(trained, paths, dict(zip(table["image_path"], table["class_name"], strict=True)), done)
    content: dict[str, Any] = {
        "run": trained.run.name, "model": trained.run.title, "data_notice": trained.run.record.data_notice,
        "precision": "float32", "device": str(trained.device),
        "classes": None if facts is None else list(facts.pair_names),
        "sample": None if facts is None else {"num_images": len(sample_paths), "seed": settings.seed},
    }  # fmt: skip
    try:
        layer = first_layer(trained.model, trained.recipe.crop)
        done.written.append(save_figure(filters_figure(layer, trained.run.title), out / FIRST_LAYER_FIGURE))
        content["first_layer"] = {
            "layer": layer.layer, "shows": layer.shows, "num_kernels": layer.num_all,
            "explained_variance": None if layer.explained is None else layer.explained.tolist(),
        }  # fmt: skip
        yield f"first layer: {layer.shows.partition(';')[0]}"
    except UnexplainableError as error:
        done.failures.append(f"the first layer cannot be shown: {error}")
    if shown is not None:
        try:
            yield from _look_at(trained, shown, sample_paths, facts, settings, out, done, content)
        except UnexplainableError as error:
            done.failures.append(f"feature maps cannot be shown: {error}")
    done.written.append(write_json(out / INSIDE_FILE, content))
    yield done


def _sample(
    trained: TrainedModel, table: pd.DataFrame, pair: tuple[int, int] | None, settings: InsideSettings
) -> tuple[list[str], SampleFacts] | str:
    """Choose the test images: their paths and what is known of them; or say why there are none."""
    run = trained.run
    try:
        test = run.predictions("test")
    except ValueError as error:
        return f"no test images to compare with: {error}"
    path_of = dict(zip(table["image_id"], table["image_path"], strict=True))
    known = [position for position, name in enumerate(test.ids.tolist()) if Path(path_of.get(name, "")).is_file()]
    if not known:
        return (
            f"none of the {len(test.ids):,} test images of {run.name} is where it was, such as "
            f"{path_of.get(test.ids[0], test.ids[0])}"
        )
    labels = test.labels[known]
    pair = pair or confused_pair(labels, test.predicted[known])
    chosen = choose_sample(labels, pair, settings.num_images, settings.seed)
    facts = SampleFacts(labels=labels[chosen], pair=pair, class_names=trained.class_names, seed=settings.seed)
    return [path_of[test.ids[known[at]]] for at in chosen.tolist()], facts


def _named_pair(trained: TrainedModel, names: Sequence[str] | None) -> tuple[int, int] | None:
    if names is None:
        return None
    for name in names:
        if name not in trained.class_names:
            near = did_you_mean(name, trained.class_names)
            raise ValueError(f"classes: got {name!r}, expected two of the {len(trained.class_names)} of the run{near}")
    first, second = (trained.class_names.index(name) for name in names)
    if first == second:
        raise ValueError(f"classes: got {names[0]!r} twice, expected two")
    return first, second


def _describe_sample(facts: SampleFacts) -> str:
    first, second = facts.pair_names
    num = [int((facts.labels == label).sum()) for label in facts.pair]
    return (
        f"channels are chosen on {len(facts.labels):,} test images, seed {facts.seed}; to be told apart: {first} "
        f"({num[0]} images) and {second} ({num[1]})"
    )


def _read_photos(
    trained: TrainedModel, paths: Sequence[str], true_class: dict[str, str], done: LookedInside
) -> ShownImages | None:
    """Read the photos as the model is fed them, and what it says of them; None where none can be read."""
    photos, read = [], []
    for path in paths:
        try:
            photos.append(resize_image(decode_rgb(path), trained.recipe))
            read.append(path)
        except BadImageError as error:
            done.failures.append(f"{path}: {' '.join(str(error).split())}")
    if not photos:
        return None
    images = torch.cat([trained.batch([photo]) for photo in photos]).float()
    with torch.no_grad():
        probabilities = trained.probabilities(torch.cat([trained.model(image[None]).float().cpu() for image in images]))
    confidence, predicted = probabilities.max(dim=1)
    return ShownImages(
        images=images,
        pixels=crop_pixels(images, trained.recipe),
        ids=list(read),
        true_class=[true_class.get(str(Path(path).resolve()), "") for path in read],
        pred_class=[trained.class_names[label] for label in predicted.tolist()],
        confidence=confidence.tolist(),
    )


def _look_at(
    trained: TrainedModel,
    shown: ShownImages,
    sample_paths: Sequence[str],
    facts: SampleFacts | None,
    settings: InsideSettings,
    out: Path,
    done: LookedInside,
    content: dict[str, Any],
) -> Iterator[str]:
    title = trained.run.title
    with ExitStack() as stack:
        inspected = inspect_stages(
            trained.model, shown, stack.enter_context(trained.loader(sample_paths)) if facts else None, facts,
            num_channels=NUM_UNITS, most=None if settings.all_stages else MOST_STAGES,
        )  # fmt: skip
    done.written += write_feature_maps(out, shown, inspected, facts)
    exciting = [_exciting(trained, each, sample_paths, facts) if facts else [] for each in inspected]
    for number, (stage, rows) in enumerate(zip(inspected, exciting, strict=True)):
        name = f"{number + 1:02}_{picture_name(stage.stage.name).removesuffix('.png')}"
        for part, at in enumerate(range(0, len(shown.ids), _IMAGES_A_FIGURE), start=1):
            images = range(at, min(at + _IMAGES_A_FIGURE, len(shown.ids)))
            file = f"{name}.png" if part == 1 else f"{name}_{part}.png"
            done.written.append(save_figure(maps_figure(stage, shown, facts, images, title), out / MAPS_FOLDER / file))
        if rows:
            figure = channels_figure(stage, rows, len(sample_paths), title)
            done.written.append(save_figure(figure, out / CHANNELS_FOLDER / f"{name}.png"))
        yield _describe_stage(stage) if facts else f"{stage.stage.name}: {stage.stage.channels} channels"
    if facts:
        done.written.append(write_csv(out / EXCITING_FILE, _exciting_table(inspected, exciting)))
    content["images"] = [
        {"path": path, "true_class": true or None, "pred_class": pred, "confidence": confidence}
        for path, true, pred, confidence in zip(
            shown.ids, shown.true_class, shown.pred_class, shown.confidence, strict=True
        )
    ]
    pictures = show_units(trained.model, inspected[-1], shown.images, seed=settings.seed)
    names = _unique_names(shown.ids)
    for at, name in enumerate(names):
        done.written.append(save_figure(units_figure(pictures, shown, at, title), out / UNITS_FOLDER / name))
    content["units"] = _units_as_json(pictures, shown)
    yield f"{pictures.method.name} of {NUM_UNITS} units of {pictures.stage.name}, since {pictures.method.note}"
    if pictures.account:
        yield pictures.account
    yield f"check against shuffled weights: {pictures.check.verdict}"


def _describe_stage(stage: InspectedStage) -> str:
    if not stage.separating:
        return f"{stage.stage.name}: {stage.stage.channels} channels; too few images of the pair to tell it apart"
    best = stage.separating[0]
    return (
        f"{stage.stage.name}: {stage.stage.channels} channels; channel {best.channel} tells the pair apart best, "
        f"d {best.d:+.1f}, {best.d_held_out:+.1f} on other images"
    )


def _unique_names(paths: Sequence[str]) -> list[str]:
    """Name a picture a photo after its file; of photos of one name each a number from the second on."""
    used: dict[str, int] = {}
    names = []
    for path in paths:
        stem = picture_name(Path(path).stem).removesuffix(".png")
        used[stem] = used.get(stem, 0) + 1
        names.append(f"{stem}.png" if used[stem] == 1 else f"{stem}_{used[stem]}.png")
    return names


def _exciting(
    trained: TrainedModel, inspected: InspectedStage, paths: Sequence[str], facts: SampleFacts
) -> list[tuple[str, list[Exciting]]]:
    """Find for the separating channels, and for the most active ones of the photos, the images that excite them.

    Images in which a channel nowhere exceeds its mean over the sample do not excite it.
    """
    separating = {each.channel: f"d {each.d:+.1f}" for each in inspected.separating[:_CHANNELS_OF_EACH_KIND]}
    first = [channel for rank in inspected.active.T for channel in rank.tolist() if channel not in separating]
    channels = [*separating, *list(dict.fromkeys(first))[:_CHANNELS_OF_EACH_KIND]]
    sample = inspected.sample
    # Channels that end at a value, as behind a ReLU6, reach it in many images: of these the one with most of it.
    order = np.lexsort((-sample.means, -sample.maxima), axis=0)[:_NUM_EXCITING]
    is_excited = sample.maxima > sample.means.mean(axis=0)
    crops = _crops(trained, paths, np.unique(order[:, channels]))
    rows = []
    for channel in channels:
        own = []
        for image in order[:, channel][is_excited[order[:, channel], channel]].tolist():
            row, column = divmod(int(sample.places[image, channel]), inspected.stage.side)
            own.append(
                Exciting(
                    channel=channel,
                    pixels=crops[image],
                    box=inspected.stage.box(row, column),
                    value=float(sample.maxima[image, channel]),
                    class_name=trained.class_names[facts.labels[image]],
                    image_id=paths[image],
                    row=row,
                    column=column,
                )
            )
        if own:  # a channel that is the same everywhere responds to nothing
            rows.append((f"channel {channel}\n{separating.get(channel, 'active')}", own))
    return rows


def _crops(trained: TrainedModel, paths: Sequence[str], positions: NDArray[np.int64]) -> dict[int, Pixels]:
    """Load what the model is fed of some images, by their positions."""
    with trained.loader([paths[at] for at in positions.tolist()]) as loader:
        return {
            int(positions[at]): pixels
            for batch in loader
            for at, pixels in zip(batch.index.tolist(), crop_pixels(batch.images, trained.recipe), strict=True)
        }


def _exciting_table(
    inspected: Sequence[InspectedStage], exciting: Sequence[Sequence[tuple[str, Sequence[Exciting]]]]
) -> pd.DataFrame:
    """Lay out a row for each stage, channel and image."""
    return pd.DataFrame(
        [
            {
                "stage": stage.stage.name, "channel": each.channel, "rank": rank, "image_path": each.image_id,
                "class_name": each.class_name, "value": each.value, "row": each.row, "column": each.column,
                **dict(zip(("xmin", "ymin", "xmax", "ymax"), each.box, strict=True)),
            }
            for stage, rows in zip(inspected, exciting, strict=True)
            for _, own in rows
            for rank, each in enumerate(own, start=1)
        ]
    )  # fmt: skip


def _units_as_json(pictures: UnitPictures, shown: ShownImages) -> dict[str, Any]:
    return {
        "method": pictures.method.name,
        "definition": DEFINITIONS[pictures.method.name],
        "why": pictures.method.note,
        "stage": pictures.stage.name,
        "box": pictures.stage.box_is,
        "unaccounted": pictures.unaccounted,
        "check": pictures.check.as_json(),
        "images": [
            {
                "path": path,
                "units": [
                    {"channel": unit.channel, "score": unit.score, "row": unit.row, "column": unit.column,
                     "box": list(unit.box)}
                    for unit in units
                ],
            }
            for path, units in zip(shown.ids, pictures.units, strict=True)
        ],
    }  # fmt: skip
