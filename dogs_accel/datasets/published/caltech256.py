"""What was published about Caltech-256: a ResNet-50 with 257 outputs, without any result."""

from __future__ import annotations

from dogs_accel.datasets.published.figures import Claim, Published, PublishedRun
from pipelines.recipe import IMAGENET_EVAL

_RUNS = {
    "resnet50": PublishedRun(
        family="cnn",
        strategy="unknown",
        model="ResNet-50",
        schedules=[],
        train_recipes=[],
        eval_recipes=[IMAGENET_EVAL],
        batch_sizes=[],
        image_size=224,
    )
}

CALTECH256 = Published(
    title="Caltech-256",
    num_classes=257,
    about_images=30_607,
    runs=_RUNS,
    claims=(
        Claim("x", "data", "classes, the clutter among them", 257, 0, "exact", ("classes",)),
        Claim("T(x)", "resnet50", "input size in px", 224, 0, "exact", ("config", "image_size")),
        Claim("z", "resnet50", "parameters of a ResNet-50 with 257 classes", 24_034_625, 0, "exact",
              ("config", "total_params")),
        Claim("output", "resnet50", "test accuracy", None, 0, "interval", ("test", "accuracy"),
              obstacle="no result was published, and neither a split nor a schedule"),
    ),
    caveats=(
        (
            "Overlap with pretraining",
            "Many of these categories are classes of ImageNet too, on which the backbones were pretrained, and both "
            "were gathered from the web; whether test photos are among those was not looked for. The accuracy is not "
            "that of categories that the backbone has never seen.",
        ),
    ),
)  # fmt: skip
"""The few published figures."""
