"""What must be said of results on Kaggle's cats and dogs, about which no figure was published."""

from __future__ import annotations

from dogs_accel.datasets.published.figures import Published

CATS_AND_DOGS = Published(
    title="cats and dogs",
    num_classes=2,
    caveats=(
        (
            "Overlap with pretraining",
            "ImageNet, on which the backbones were pretrained, has more than a hundred classes of dogs and several of "
            "cats. So the two are told apart before training begins, and whether test photos are among its own was not "
            "looked for: the accuracy is not that of classes that the backbone has never seen.",
        ),
    ),
)
