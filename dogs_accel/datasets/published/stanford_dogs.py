"""What was published about Stanford Dogs, and about the experiment on it: every figure that a run can check."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dogs_accel.datasets.published.figures import Claim, Published, PublishedRun, phase_fields, schedule_text
from pipelines.recipe import EVAL, RESNET_TRAIN, VIT_TRAIN

_NUM_IMAGES = {"train": 10_200, "val": 1_800, "test": 8_580}
_HEAD = phase_fields("head_only", 3, 1e-3, 1e-4)
_RATE_OF_ALL = {"cnn": 1e-4, "vit": 3e-5}
_RUNS = {
    f"{model}_{strategy}": PublishedRun(
        family=family,
        strategy=strategy,
        model=title,
        schedules=[phases],
        train_recipes=[recipe],
        eval_recipes=[EVAL],
        batch_sizes=[32],
        image_size=224,
        precision="float32",
        bn_drifted=family == "cnn" and strategy == "staged",
    )
    for model, family, title, recipe in (
        ("resnet50", "cnn", "ResNet-50", RESNET_TRAIN),
        ("vit_b16", "vit", "ViT-B/16", VIT_TRAIN),
    )
    for strategy, phases in (
        ("full", [phase_fields("full_finetune", 12, _RATE_OF_ALL[family], 1e-4)]),
        ("staged", [_HEAD, phase_fields("full_finetune", 8, _RATE_OF_ALL[family], 1e-4)]),
    )
}


def _data_claims() -> Iterable[Claim]:
    def exact(stage: str, figure: str, value: Any, *measure: Any, decimals: int = 0) -> Claim:
        return Claim(stage, "data", figure, value, decimals, "exact", measure)

    yield exact("x", "images in all", 20_580, "images", "")
    yield exact("x", "breeds", 120, "classes")
    yield exact("x", "images of the official training list", 12_000, "images", "official_train")
    yield exact("x", "images of the official test list", 8_580, "images", "official_test")
    for split, count in _NUM_IMAGES.items():
        yield exact("x", f"{split} images", count, "split", split)
    yield exact("x", "images of the smallest breed", 148, "class_size", "min")
    yield exact("x", "images of the largest breed", 252, "class_size", "max")
    yield exact("x", "mean images of a breed", 171.5, "class_size", "mean", decimals=1)
    for breed, support in zip(_BREEDS, (52, 85, 152, 49, 114), strict=True):
        yield exact("x", f"test images of {breed}", support, "support", breed)
    means = (("brightness_mean", 0.4522), ("contrast_std", 0.2261), ("saturation_mean", 0.3047), ("r_mean", 0.4761),
             ("g_mean", 0.4518), ("b_mean", 0.3910), ("width", 442.5), ("height", 385.9),
             ("aspect_ratio", 1.19))  # fmt: skip
    for column, value in means:
        decimals = {"width": 1, "height": 1, "aspect_ratio": 2}.get(column, 4)
        yield exact("x", f"mean {column}", value, "mean", column, decimals=decimals)
    columns = ("width", "height", "aspect_ratio", "brightness_mean", "contrast_std", "saturation_mean")
    for image, values in _PREVIEW.items():
        for column, value in zip(columns, values, strict=True):
            decimals = 0 if column in ("width", "height") else 3
            yield exact("x", f"{column} of {image}", value, "image", image, column, decimals=decimals)
    for row, image in enumerate(("n02107142_4013", "n02091244_5818", "n02107574_2912")):
        yield exact("x", f"training image {row + 1} of split_metadata.csv", image, "split_row", row)
    for split, count in (("train", 319), ("val", 57), ("test", 269)):
        yield exact("T(x)", f"{split} batches of 32", count, "batches", split, 32)


_BREEDS = ("Chihuahua", "Japanese spaniel", "Maltese dog", "Pekinese", "Shih-Tzu")
_PREVIEW = {
    "n02085620_5927": (360, 300, 1.200, 0.348, 0.221, 0.445),
    "n02085620_4441": (375, 500, 0.750, 0.538, 0.099, 0.223),
    "n02085620_1502": (500, 333, 1.502, 0.543, 0.215, 0.267),
}
_TEST_FIGURES = {
    "resnet50_full": (0.8557, 0.8485, 0.8562, 0.0468, 227.08),
    "resnet50_staged": (0.8655, 0.8599, 0.8659, 0.0408, 205.03),
    "vit_b16_full": (0.9077, 0.9026, 0.9080, 0.0178, 943.43),
    "vit_b16_staged": (0.9348, 0.9311, 0.9350, 0.0198, 755.21),
}
"""Accuracy, macro F1, weighted F1, ECE, training seconds."""
_EPOCHS = {
    "resnet50_staged": ((1, 0.00075, 0.5808, 0.8122, 1.1028), (3, 0.0, 0.8609, 0.8483, 0.6702), (4, 0.8456)),
    "vit_b16_staged": ((1, 0.00075, 0.8743, 0.9456, 0.1834), (3, 0.0, 0.9562, 0.9522, 0.1589), (4, 0.9256)),
}
"""Epoch of the run, learning rate after it, training and validation accuracy, validation loss; of the last only one."""
_PER_BREED = {
    "resnet50_staged": (
        (0.8000, 0.8462, 0.8224), (0.9176, 0.9176, 0.9176), (0.9054, 0.8816, 0.8933), (0.8696, 0.8163, 0.8421),
        (0.7280, 0.7982, 0.7615),
    ),
    "vit_b16_staged": (
        (0.8475, 0.9615, 0.9009), (0.9512, 0.9176, 0.9341), (0.9724, 0.9276, 0.9495), (0.9038, 0.9592, 0.9307),
        (0.8595, 0.9123, 0.8851),
    ),
}  # fmt: skip
"""Precision, recall and F1 of _BREEDS."""
_HARDEST = {
    "Eskimo dog": 0.390,
    "miniature poodle": 0.532,
    "Siberian husky": 0.582,
    "Staffordshire bullterrier": 0.629,
    "American Staffordshire terrier": 0.629,
    "Yorkshire terrier": 0.645,
}
"""F1 of the breeds that are hardest for the staged ResNet-50."""


def _run_claims() -> Iterable[Claim]:
    for run, setting in _RUNS.items():
        params = {"cnn": 23_753_912, "vit": 85_890_936}[setting.family]
        yield Claim("z", run, "parameters", params, 0, "exact", ("config", "total_params"))
        yield Claim("T(x)", run, "batch size", 32, 0, "exact", ("config", "batch_size"))
        yield Claim("T(x)", run, "input size in px", 224, 0, "exact", ("config", "image_size"))
        yield Claim("z", run, "phases", schedule_text(setting.schedules[0]), 0, "exact", ("phases",))
    for run, (*scores, seconds) in _TEST_FIGURES.items():
        names = (("test accuracy", "accuracy"), ("macro F1", "macro_f1"), ("weighted F1", "weighted_f1"))
        for (figure, measure), value in zip((*names, ("ECE, 10 bins", "ece")), scores, strict=True):
            yield Claim("output", run, figure, value, 4, "interval", ("test", measure))
        yield Claim("output", run, "training seconds", seconds, 2, "time", ("seconds",))
    for pair, value in (("resnet50_full resnet50_staged", 0.0098), ("vit_b16_full vit_b16_staged", 0.0272)):
        yield Claim("output", pair, "gain of accuracy by the staged schedule", value, 4, "interval", ("difference",))
    for run, (first, last, full) in _EPOCHS.items():
        for epoch, lr, train_acc, val_acc, val_loss in (first, last):
            when = f"epoch {epoch}"
            yield Claim("z", run, f"learning rate after {when}", lr, 5, "exact", ("epoch", epoch, "lr"))
            yield Claim("z", run, f"training accuracy, {when}", train_acc, 4, "interval", ("epoch", epoch, "train"))
            yield Claim("z", run, f"validation accuracy, {when}", val_acc, 4, "interval", ("epoch", epoch, "val"))
            yield Claim("z", run, f"validation loss, {when}", val_loss, 4, "interval", ("epoch", epoch, "val_loss"))
        epoch, val_acc = full
        yield Claim("z", run, f"validation accuracy, epoch {epoch}, the first of the whole model", val_acc, 4,
                    "interval", ("epoch", epoch, "val"))  # fmt: skip
    for run, rows in _PER_BREED.items():
        for breed, row in zip(_BREEDS, rows, strict=True):
            for score, value in zip(("precision", "recall", "F1"), row, strict=True):
                yield Claim("g(z)", run, f"{score} of {breed}", value, 4, "interval", ("class", breed, score))
    for breed, value in _HARDEST.items():
        yield Claim("g(z)", "resnet50_staged", f"F1 of {breed}", value, 3, "interval", ("class", breed, "F1"))
    every = " ".join(_RUNS)
    yield Claim("output", every, "highest test accuracy", "vit_b16_staged", 0, "choice", ("first", "accuracy", -1))
    yield Claim("output", every, "lowest ECE", "vit_b16_full", 0, "choice", ("first", "ece", 1))
    yield Claim("output", every, "shortest training", "resnet50_staged", 0, "choice", ("first", "seconds", 1))


STANFORD_DOGS = Published(
    title="Stanford Dogs",
    num_classes=120,
    num_images=_NUM_IMAGES,
    image_means=(0.4761, 0.4518, 0.3910),
    gpu="A100 80GB PCIe",
    runs=_RUNS,
    claims=(*_data_claims(), *_run_claims()),
    caveats=(
        (
            "Overlap with pretraining",
            "The images of Stanford Dogs come from ImageNet, on which both backbones of the published experiment, and "
            "most others, were pretrained. Test images may have been seen before, with nearly the same labels: the "
            "accuracy is not that of new photos.",
        ),
    ),
    wandb_group="stanford-dogs-fair-benchmark",
)
"""Every published figure that a run can check, and the settings of the published runs."""
