"""What was published about Oxford-IIIT Pet: a comparison of five pretrained networks with frozen backbones."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from dogs_accel.datasets.published.figures import Claim, Published, PublishedRun, phase_fields, schedule_text
from pipelines.recipe import IMAGENET_EVAL, PETS_MILD_TRAIN, PETS_TRAIN, Recipe

_NUM_IMAGES = {"train": 3_680, "test": 3_669}
_HALF = (0.5, 0.5, 0.5)
_TITLES = {
    "vgg16": ("VGG16", ("vgg16", "timm/vgg16", "vgg16.tv_in1k")),
    "resnet50": ("ResNet-50", ("resnet50.tv_in1k", "resnet50.a1_in1k")),
    "mobilenetv3": (
        "MobileNetV3 Large",
        ("mobilenet_v3_large", "mobilenetv3_large_100", "mobilenetv3_large_100.ra_in1k"),
    ),
    "efficientnet_b3": (
        "EfficientNet-B3",
        ("efficientnet_b3", "timm/efficientnet_b3", "tf_efficientnet_b3", "tf_efficientnet_b3.in1k"),
    ),
    "xception": ("Xception", ("xception", "legacy_xception", "legacy_xception.tf_in1k")),
}
"""Name for people, and what records call torchvision's and timm's."""
_MILLIONS = {"vgg16": 134.41, "resnet50": 23.58, "mobilenetv3": 4.25, "efficientnet_b3": 10.75, "xception": 20.88}
"""Parameters at 37 classes as published."""
_PATIENT = {"optimizer": "adam", "schedule": "constant", "patience": 5, "min_delta": 0.001}
_SCHEDULES = [
    [phase_fields("head_only", 40, 1e-3, 0.0, **_PATIENT, **monitor)] for monitor in ({}, {"monitor": "loss"})
]
"""Early stopping looks at validation, whether at its accuracy or its loss is not said."""
_BY_HALF = "the publication normalises this network by 0.5 on one page and by ImageNet's statistics on another"
_AUGMENTED = "published crops cover at least 8 % of the area on one page and 80 % on another"


def _run(name: str, is_augmented: bool) -> PublishedRun:
    title, others = _TITLES[name]
    is_said_both_ways = name not in ("vgg16", "resnet50")

    def normalised(*recipes: Recipe) -> list[Recipe]:
        by_half = [dataclasses.replace(recipe, mean=_HALF, std=_HALF) for recipe in recipes]
        return [*recipes, *by_half] if is_said_both_ways else list(recipes)

    return PublishedRun(
        family="cnn",
        strategy="head",
        model=title,
        other_names=others,
        schedules=_SCHEDULES,
        train_recipes=normalised(*((PETS_TRAIN, PETS_MILD_TRAIN) if is_augmented else (IMAGENET_EVAL,))),
        eval_recipes=normalised(IMAGENET_EVAL),
        batch_sizes=[32],
        image_size=224,
        notes=(*[_AUGMENTED] * is_augmented, *[_BY_HALF] * is_said_both_ways),
    )


_RUNS = {
    f"{name}_{'aug' if is_augmented else 'noaug'}": _run(name, is_augmented)
    for name in _TITLES
    for is_augmented in (False, True)
}
_EVERY = " ".join(_RUNS)
_SAME_IMAGES = "the published validation images are the test images; here validation is carved out of training"
_NAMED_WITHOUT = "published without (NoAug) in its name, so taken for the run with augmentation"
_OF_ALL = "the runs of the published range are not listed; taken for the five networks with and without augmentation"
_TEST_NOTE = (
    "the published figure is optimistic, since the test images stopped and chose its runs, each of one seed; ours "
    "trained on fewer images, since validation is carved out of training"
)


def _data_claims() -> Iterable[Claim]:
    def exact(figure: str, value: Any, *measure: Any, obstacle: str = "") -> Claim:
        return Claim("x", "data", figure, value, 0, "exact", measure, obstacle=obstacle)

    yield exact("breeds", 37, "classes")
    yield exact("images of the official training list", 3_680, "images", "official_train")
    yield exact("images of the official test list", 3_669, "images", "official_test")
    yield exact("training images", 3_680, "split", "train", obstacle=_SAME_IMAGES)
    yield exact("validation images", 3_669, "split", "val", obstacle=_SAME_IMAGES)
    yield exact("test images", 3_669, "split", "test")


def _run_claims() -> Iterable[Claim]:
    for name, millions in _MILLIONS.items():
        run = f"{name}_noaug"
        params = round(millions * 1e6)
        yield Claim("z", run, "parameters, to 0.01 million", params, -4, "exact", ("config", "total_params"))
        yield Claim("T(x)", run, "batch size", 32, 0, "exact", ("config", "batch_size"))
        yield Claim("T(x)", run, "input size in px", 224, 0, "exact", ("config", "image_size"))
        yield Claim("z", run, "phases", schedule_text(_SCHEDULES[0]), 0, "exact", ("phases",))
    for run, accuracy, note in (
        ("vgg16_noaug", 0.891, ""),
        ("resnet50_noaug", 0.869, ""),
        ("mobilenetv3_aug", 0.811, _NAMED_WITHOUT),
    ):
        yield Claim("output", run, "test accuracy", accuracy, 3, "interval", ("test", "accuracy"), note)
    yield Claim("output", "vgg16_noaug", "macro F1", 0.885, 3, "interval", ("test", "macro_f1"))
    for figure, measure, low, high in (
        ("test accuracy", "accuracy", 0.771, 0.891),
        ("macro F1", "macro_f1", 0.767, 0.885),
        ("top-5 accuracy", "top5_accuracy", 0.957, 0.993),
    ):
        for which, end, sign in (("lowest", low, 1), ("highest", high, -1)):
            way = ("extreme", measure, sign)
            yield Claim("output", _EVERY, f"{which} {figure}", end, 3, "interval", way, _OF_ALL)
    yield Claim("output", _EVERY, "recommended for accuracy: highest test accuracy", "vgg16_noaug", 0, "choice",
                ("first", "accuracy", -1))  # fmt: skip
    yield Claim("output", _EVERY, "recommended for mobile devices: fewest parameters", "mobilenetv3_noaug", 0, "choice",
                ("smallest",), "published for its size and speed, without a time")  # fmt: skip
    for figure, value, obstacle in (
        ("recommended for balance", "resnet50_noaug", "no rule of balance and no time was published"),
        ("fastest model", "mobilenetv3_aug", "neither a time nor the hardware was published"),
        ("training from scratch is slower", "yes", "no run from scratch was published"),
        (
            "EfficientNet-B3 underperformed",
            "yes",
            "no figure of it was published, which ran at 224 of its 300 px",
        ),
        ("heavy augmentation made models overfit", "yes", "no training curve was published"),
    ):
        yield Claim("output", _EVERY, figure, value, 0, "choice", (), obstacle=obstacle)


OXFORD_PETS = Published(
    title="Oxford-IIIT Pet",
    num_classes=37,
    num_images=_NUM_IMAGES,
    runs=_RUNS,
    claims=(*_data_claims(), *_run_claims()),
    test_note=_TEST_NOTE,
    caveats=(
        (
            "Overlap with pretraining",
            "ImageNet, on which the backbones were pretrained, has classes of most of these breeds, above all of the "
            "dogs. So what tells them apart was learnt from far more photos than are here, and whether test photos are "
            "among those was not looked for: the accuracy is not that of breeds that the backbone has never seen.",
        ),
    ),
)
"""Every published figure, those that nobody can judge with the reason."""
