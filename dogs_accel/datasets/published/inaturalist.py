"""What was published about iNaturalist-12K: a small CNN from scratch after a sweep, and a ResNet-50 fine-tuned."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from dogs_accel.datasets.published.figures import Claim, PhaseFields, Published, PublishedRun, phase_fields
from pipelines.recipe import INATURALIST_EVAL, INATURALIST_TRAIN

_ADAM = {"optimizer": "adam", "schedule": "constant"}
_LAST_TWO: tuple[PhaseFields, ...] = ({"groups": ("layer4", "fc")}, {"num_groups": 2})
"""Two ways to say the same layers of a ResNet."""
_RUNS = {
    "cnn5_best": PublishedRun(
        family="cnn",
        strategy="from scratch",
        model="CNN of five blocks",
        other_names=("cnn5 (activation=mish, norm=batch, dropout=0.3)",),
        weights="none",
        schedules=[[phase_fields("full_finetune", 10, 1e-3, 0.0, **_ADAM)]],
        train_recipes=[INATURALIST_EVAL],
        eval_recipes=[INATURALIST_EVAL],
        batch_sizes=[64],
        image_size=224,
        precision="float16",
    ),
    "resnet50_last_two": PublishedRun(
        family="cnn",
        strategy="last two layer groups",
        model="ResNet-50",
        # The grid of its sweep.
        schedules=[
            [phase_fields("partial_finetune", 5, lr, weight_decay, **groups, **_ADAM)]
            for lr, weight_decay, groups in itertools.product((1e-4, 5e-4, 1e-3), (1e-4, 1e-5, 1e-3), _LAST_TWO)
        ],
        train_recipes=[INATURALIST_EVAL, INATURALIST_TRAIN],
        eval_recipes=[INATURALIST_EVAL],
        batch_sizes=[32, 64],
        image_size=224,
        precision="float16",
    ),
}
_BOTH = " ".join(_RUNS)
_RETRAINED = (
    "the published figure is of a retraining of ten epochs with the best setting of a sweep, not of the network that "
    "the sweep found; one run"
)
_OF_A_SWEEP = "the published range is read off a plot of the runs of a sweep, of five epochs each; ours is of one run"
_ONE_CLASS = (
    "the published grid is of the first 30 test images, which are all of Amphibia, with 6 right; ours is the share of "
    "all of that class"
)


def _claims() -> Iterable[Claim]:
    yield Claim("x", "data", "classes", 10, 0, "exact", ("classes",))
    yield Claim("x", "data", "share of training that is validation", 0.2, 2, "exact", ("val_share",))
    params = ("config", "total_params")
    yield Claim("z", "cnn5_best", "parameters by the published formula and 320 of BatchNorm, which it leaves out",
                442_442, 0, "exact", params)  # fmt: skip
    yield Claim("z", "resnet50_last_two", "parameters of a ResNet-50 with ten classes", 23_528_522, 0, "exact", params)
    yield Claim("T(x)", "cnn5_best", "batch size", 64, 0, "exact", ("config", "batch_size"))
    for run in _RUNS:
        yield Claim("T(x)", run, "input size in px", 224, 0, "exact", ("config", "image_size"))
    yield Claim("output", "cnn5_best", "test accuracy", 0.341, 3, "interval", ("test", "accuracy"), _RETRAINED)
    for run, ends in (("cnn5_best", (0.3, 0.4)), ("resnet50_last_two", (0.7, 0.8))):
        yield Claim("z", run, "validation accuracy, epoch 5", ends, 1, "range", ("epoch", 5, "val"), _OF_A_SWEEP)
    yield Claim("output", _BOTH, "highest validation accuracy", "resnet50_last_two", 0, "choice",
                ("first", "val_accuracy", -1), "the published runs are many more than two")  # fmt: skip
    yield Claim("g(z)", "cnn5_best", "right of 30 test images shown", 0.2, 2, "interval",
                ("class", "Amphibia", "recall"), obstacle=_ONE_CLASS)  # fmt: skip
    yield Claim("output", "resnet50_last_two", "test accuracy", None, 0, "interval", ("test", "accuracy"),
                obstacle="none was published of the fine-tuned network")  # fmt: skip
    yield Claim("z", "cnn5_best", "best activation, filters and dense width of the sweep", "mish, same, 256", 0,
                "choice", (), obstacle="one run cannot say it, and the published sweep did not try its settings evenly",
                )  # fmt: skip


INATURALIST = Published(
    title="iNaturalist-12K",
    num_classes=10,
    about_images=12_000,
    val_share=0.2,
    runs=_RUNS,
    claims=tuple(_claims()),
    caveats=(
        (
            "Overlap with pretraining",
            "Some 400 of ImageNet's 1,000 classes are animals, so that a pretrained backbone has learnt to tell them "
            "apart from far more photos than are here. What it gains over a network from scratch is not the "
            "architecture's alone, and whether test photos are among ImageNet's was not looked for.",
        ),
    ),
)
"""Every published figure, those that nobody can judge with the reason."""
