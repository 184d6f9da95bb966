"""What was published about CIFAR-10: what a guide expects of a small ResNet and a small ViT from scratch."""

from __future__ import annotations

from collections.abc import Iterable

from dogs_accel.datasets.published.figures import Claim, Published, PublishedRun, phase_fields, schedule_text
from pipelines.recipe import CIFAR_EVAL, CIFAR_TRAIN

_SCHEDULE = [phase_fields("full_finetune", 50, 1e-3, 0.05)]
_VIT_NOTE = "the published encoder has its norms behind attention and MLP, PyTorch's default; here they come before"


def _run(family: str, model: str, other_names: tuple[str, ...], notes: tuple[str, ...] = ()) -> PublishedRun:
    return PublishedRun(
        family=family,
        strategy="from scratch",
        model=model,
        other_names=other_names,
        weights="none",
        schedules=[_SCHEDULE],
        train_recipes=[CIFAR_TRAIN],
        eval_recipes=[CIFAR_EVAL],
        batch_sizes=[128],
        image_size=32,
        precision="float32",
        notes=notes,
    )


_RUNS = {
    "resnet18": _run("cnn", "ResNet-18 for CIFAR", ("resnet18_cifar",)),
    "vit": _run("vit", "ViT of 32 px", ("vit (patch=4, dim=256, depth=6, heads=8)",), (_VIT_NOTE,)),
}
_BOTH = " ".join(_RUNS)
_TEST_NOTE = (
    "the published figure is expected, not measured, and is optimistic, the best of 50 evaluations of the test images; "
    "ours trained on fewer images, since validation is carved out of training"
)
_ALL_TRAINED_ON = "the published loader has every training image; here validation is carved out of them"
_WRONG_COUNT = "the published figure is an error: the published code has 4,771,082"
_NO_SETTINGS = "no weights, code or settings of it were published"


def _claims() -> Iterable[Claim]:
    yield Claim("x", "data", "classes", 10, 0, "exact", ("classes",))
    yield Claim("T(x)", "data", "train batches of 128", 391, 0, "exact", ("batches", "train", 128),
                obstacle=_ALL_TRAINED_ON)  # fmt: skip
    yield Claim("T(x)", "data", "test batches of 128", 79, 0, "exact", ("batches", "test", 128))
    params = ("config", "total_params")
    yield Claim("z", "resnet18", "parameters, to a million", 11_000_000, -6, "exact", params)
    yield Claim("z", "resnet18", "parameters of the published code", 11_173_962, 0, "exact", params)
    yield Claim("z", "vit", "parameters, to a million", 8_000_000, -6, "exact", params, _WRONG_COUNT)
    yield Claim("z", "vit", "parameters of the published code", 4_771_082, 0, "exact", params)
    for run in _RUNS:
        yield Claim("T(x)", run, "batch size", 128, 0, "exact", ("config", "batch_size"))
        yield Claim("T(x)", run, "input size in px", 32, 0, "exact", ("config", "image_size"))
        yield Claim("z", run, "phases", schedule_text(_SCHEDULE), 0, "exact", ("phases",))
    yield Claim("output", "resnet18", "test accuracy", (0.93, 0.94), 2, "range", ("test", "accuracy"))
    yield Claim("output", "vit", "test accuracy", (0.90, 0.92), 2, "range", ("test", "accuracy"))
    yield Claim("output", _BOTH, "highest test accuracy from scratch", "resnet18", 0, "choice",
                ("first", "accuracy", -1))  # fmt: skip
    yield Claim("output", "pretrained ViT", "test accuracy", (0.96, 0.97), 2, "range", (), obstacle=_NO_SETTINGS)
    yield Claim("z", "pretrained ViT", "parameters, to a million", 86_000_000, -6, "exact", (), obstacle=_NO_SETTINGS)


CIFAR10 = Published(
    title="CIFAR-10",
    num_classes=10,
    num_images={"train": 50_000, "test": 10_000},
    runs=_RUNS,
    claims=tuple(_claims()),
    test_note=_TEST_NOTE,
    caveats=(
        (
            "Overlap with pretraining",
            "ImageNet has classes of nearly all of these kinds, so that a pretrained backbone has seen such objects "
            "before, in far larger photos. Networks from random weights have not.",
        ),
    ),
)
"""Every published figure, those that nobody can judge with the reason."""
