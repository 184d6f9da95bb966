"""Mixup and CutMix: what a step draws, and a batch mixed where it lies.

Both replace a training image by one made of two, and its label by both labels, weighted by lam and 1 - lam (mixup:
Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018; CutMix: Yun et al., "CutMix: Regularization
Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019). Images, boxes and weights are those of
torchvision.transforms.v2 for the same lambda, permutation and centre of the box.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from dogs_accel.training.phases import Phase

_STREAM = 0x6D6978
"""Keeps these numbers apart from others of the same seed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MixDraw:
    """What happens to one batch of B images."""

    lam: float
    """Share of an image's own label; 1 mixes nothing."""
    permutation: NDArray[np.int64]
    """(B,) which image each one is mixed with, maybe itself."""
    box: tuple[int, int, int, int] | None
    """CutMix: (left, top, right, bottom) in px of what is taken from the other image; None is mixup."""


class Mixed(NamedTuple):
    """The second labels of a batch, and how much they weigh."""

    labels: torch.Tensor
    """(B,) int64 of the images that were mixed in."""
    lam: torch.Tensor
    """() float32: the first labels weigh lam, these 1 - lam."""


def draw_mix(phase: Phase, *, seed: int, epoch: int, step: int, num_images: int, height: int, width: int) -> MixDraw:
    """Draw what a phase that mixes does to a batch of images of height x width px.

    Everything follows from (seed, epoch, step): no order of calls and no global generator matters. Whether, how, lam
    and the box are the same whatever the number of images, so all processes of a step agree on them; the permutation is
    of the images of this process. lam is of Beta(alpha, alpha); that of CutMix is then 1 less the share that the box
    covers, which is clipped at the border.
    """
    key, counter = np.array([seed, _STREAM], dtype=np.uint64), np.array([0, step, epoch, 0], dtype=np.uint64)
    random = np.random.Generator(np.random.Philox(counter=counter, key=key))
    is_mixed = random.random() < phase.mix_probability
    prefers_cutmix = random.random() < 0.5
    across, down = random.random(2)
    is_cutmix = phase.mix == "cutmix" or (phase.mix == "mixup_or_cutmix" and prefers_cutmix)
    alpha = phase.cutmix_alpha if is_cutmix else phase.mixup_alpha
    lam, box = float(random.beta(alpha, alpha)), None
    if is_cutmix:
        box = cut_box(lam, int(across * width), int(down * height), height=height, width=width)
        left, top, right, bottom = box
        lam = 1.0 - (right - left) * (bottom - top) / (width * height)
    if not is_mixed:
        lam, box = 1.0, None
    return MixDraw(lam=lam, permutation=random.permutation(num_images), box=box)


def cut_box(lam: float, x: int, y: int, *, height: int, width: int) -> tuple[int, int, int, int]:
    """Give the box (left, top, right, bottom) of CutMix around a pixel: sqrt(1 - lam) of each side, clipped.

    The halves on both sides of the centre are rounded down, as torchvision.transforms.v2.CutMix has it.
    """
    half = 0.5 * math.sqrt(1.0 - lam)
    half_width, half_height = int(half * width), int(half * height)
    left, top = max(x - half_width, 0), max(y - half_height, 0)
    return left, top, min(x + half_width, width), min(y + half_height, height)


def mix_images(images: torch.Tensor, draw: MixDraw) -> None:
    """Mix a batch (B, 3, H, W) of any floating dtype and memory layout where it lies.

    Mixup needs a second batch of memory meanwhile, CutMix a copy of the boxes.
    """
    if draw.lam == 1:
        return
    permutation = _on_device(draw.permutation, images.device)
    if draw.box is None:
        other = images.index_select(0, permutation).mul_(1.0 - draw.lam)
        images.mul_(draw.lam).add_(other)
        return
    left, top, right, bottom = draw.box
    part = images[:, :, top:bottom, left:right]
    part.copy_(part.index_select(0, permutation))


class Mixer:
    """Mixes the batches of one epoch of a phase."""

    def __init__(self, phase: Phase, *, seed: int, epoch: int) -> None:
        self._phase = phase
        self._seed = seed
        self._epoch = epoch

    def __call__(self, step: int, images: torch.Tensor, labels: torch.Tensor) -> Mixed:
        """Mix the batch of a step, images (B, 3, H, W) and labels (B,), and give its second labels.

        The images are changed where they lie: the batch belongs to the step that mixes it, and nobody may read it as it
        was loaded afterwards. One image, or one that is repeated, has no other to be mixed with and stays as it is.
        Nothing waits for the device.
        """
        num_images, _, height, width = images.shape
        if num_images == 1 or images.stride(0) == 0:
            return Mixed(labels, _scalar(1.0, labels.device))
        draw = draw_mix(
            self._phase, seed=self._seed, epoch=self._epoch, step=step, num_images=num_images, height=height,
            width=width,
        )  # fmt: skip
        mix_images(images, draw)
        others = labels.index_select(0, _on_device(draw.permutation, labels.device))
        return Mixed(others, _scalar(draw.lam, labels.device))


def mixer_of(phase: Phase, *, seed: int, epoch: int) -> Mixer | None:
    """Give what mixes the batches of an epoch, counted over the run; None of a phase that does not mix."""
    return None if phase.mix == "none" else Mixer(phase, seed=seed, epoch=epoch)


def refuse_mixed_features(phases: Sequence[Phase]) -> None:
    """Raise ValueError where a phase that is to train a head on cached features would mix.

    The features of a mixed image are not the mixed features of two, so it would be another experiment under the name.
    """
    for phase in phases:
        if phase.mode == "head_only" and phase.mix != "none":
            raise ValueError(
                f"mix: got {phase.mix} in {phase.name} with cached features, expected none: images are mixed, and "
                "cached features are of whole ones"
            )


def mixed_scores_note(phases: Sequence[Phase]) -> str | None:
    """Say what the training scores of a run mean where phases mix; None where none does."""
    names = [f"{phase.name} ({phase.mix})" for phase in phases if phase.mix != "none"]
    if not names:
        return None
    return (
        f"in {', '.join(names)} the training scores are of mixed images: the loss is weighted by lam, and an answer "
        "counts lam where it is the image's own label and 1 - lam where it is that of the image mixed in; validation "
        "and test mix nothing"
    )


def _scalar(value: float, device: torch.device) -> torch.Tensor:
    return torch.full((), value, dtype=torch.float32, device=device)  # made there, so that nothing is copied


def _on_device(array: NDArray[np.int64], device: torch.device) -> torch.Tensor:
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
