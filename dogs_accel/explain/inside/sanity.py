"""Whether a saliency picture depends on what a network has learned, or is an edge detector."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor, nn

from dogs_accel.explain.inside.saliency import GUIDED, INTEGRATED

FAILS_FROM, PASSES_BELOW = 0.5, 0.2
_KNOWN = {
    GUIDED: "guided backpropagation is known to fail this check (Adebayo et al.)",
    INTEGRATED: "integrated gradients, which are multiplied by the image, are known to fail this check in part "
    "(Adebayo et al.)",
}
DEFINITION = (
    "Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018: Spearman's rank correlation of absolute saliency, "
    "summed over colours, between the network and one whose weights are shuffled within each tensor, of which a "
    "channel that is active in the same cell is taken, over the pixels of a unit's receptive field, mean over units; "
    "edges: the same with the Sobel gradient of the image"
)


@dataclass(frozen=True, kw_only=True)
class SanityCheck:
    """What comparing a network's saliency pictures with those of a shuffled one shows."""

    method: str
    with_shuffled: float | None
    """Mean rank correlation, None where no unit can be compared."""
    with_edges: float | None
    """That of the network's own pictures with the edges of the image."""
    num_units: int

    @property
    def verdict(self) -> str:
        """Say in words what the correlation means."""
        if self.with_shuffled is None:
            return "not checked: no unit of the shuffled network answers to the images"
        if self.with_shuffled < PASSES_BELOW:
            return "passed: the pictures depend on what was learned"
        known = _KNOWN.get(self.method, "")
        if self.with_shuffled < FAILS_FROM:
            return f"passed in part: the pictures say something of what was learned and something of the image; {known}"
        return f"failed: the pictures depend more on the image than on what was learned; {known}"

    def as_json(self) -> dict[str, Any]:
        """Lay the check out for a file."""
        return {
            "definition": DEFINITION,
            "similarity_with_shuffled_weights": self.with_shuffled,
            "similarity_with_edges": self.with_edges,
            "num_units": self.num_units,
            "verdict": self.verdict,
        }


@torch.no_grad()
def shuffled_copy(model: nn.Module, images: Tensor, seed: int) -> nn.Module:
    """Copy a model, each of its weight tensors with its own values in a random order.

    So nothing is left of what was learned but the distribution of the weights. Statistics of BatchNorm are taken anew
    on images (N, 3, S, S), without which a shuffled network would give nothing at all.
    """
    copied = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    for parameter in copied.parameters():
        order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
        parameter.copy_(parameter.flatten()[order].view_as(parameter))
    norms = [module for module in copied.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    copied.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over what it sees
        norm.train()
    if norms:
        copied(images if len(images) > 1 else torch.cat([images, images.flip(3)]))
    return copied.eval()


def saliency_similarity(first: Tensor, second: Tensor, box: Sequence[float]) -> float | None:
    """Rank correlation of two saliencies (3, S, S) within a box; None where one of them is constant there."""
    left, top, right, bottom = (round(side) for side in box)
    values = [each.abs().sum(dim=0)[top:bottom, left:right].flatten().cpu().numpy() for each in (first, second)]
    return rank_correlation(*values)


def rank_correlation(first: NDArray[Any], second: NDArray[Any]) -> float | None:
    """Spearman's rank correlation, equal values with their mean rank; None where all values of one are equal."""
    ranks = [rankdata(each) for each in (first, second)]
    if any(np.ptp(each) == 0 for each in ranks):
        return None
    return float(np.corrcoef(*ranks)[0, 1])


def edges(images: Tensor) -> Tensor:
    """Sobel's gradient of the brightness of images (N, 3, S, S), its length: (N, 1, S, S)."""
    grey = images.float().mean(dim=1, keepdim=True)
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], device=images.device)[None, None]
    padded = nn.functional.pad(grey, (1, 1, 1, 1), mode="replicate")
    across, down = (nn.functional.conv2d(padded, each) for each in (kernel, kernel.transpose(2, 3)))
    return (across.square() + down.square()).sqrt()


def mean_known(values: Sequence[float | None]) -> float | None:
    """Mean of those that are known; None without any."""
    known = [each for each in values if each is not None]
    return float(np.mean(known)) if known else None
