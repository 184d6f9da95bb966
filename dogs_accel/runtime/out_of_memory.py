"""A batch that does not fit the memory: an error that names one that does, found out by trying."""

from __future__ import annotations

import gc
import os
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch

from dogs_accel.runtime.memory import obtainable_bytes, refusing_more_than_available
from pipelines.cores import memory_limit

Value = TypeVar("Value")

_MESSAGES = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "can't allocate memory",
    "std::bad_alloc",
    # torch's stable ABI names the call that failed and keeps its reason to itself.
    '"aten::new_empty"',
    '"aten::new_zeros"',
)
"""What is said where there is no class for it: by the driver, the libraries, a CPU's allocator and our operators."""
_MOST_SHOWN = 200
"""Letters of such a message."""


class BatchTooLargeError(ValueError):
    """A batch that does not fit the memory; the message says which one does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Demand:
    """What the steps of some work need memory for."""

    work: str
    """What is done, for the message, such as "the training of resnet50_full"."""
    num_images: int
    """Images a step, of all processes together."""
    image_size_px: int
    device: torch.device
    flag: str | None
    """What sets num_images, such as "--batch-size"; None where nothing does."""
    num_processes: int = 1
    least: int = 1
    """The smallest step worth a try."""
    image_bytes: int = 0
    """What an image of a step takes at least, where that is known: more than its pixels."""

    def describe(self) -> str:
        """Say that it does not fit."""
        setting = "batch_size" if self.flag is None else self.flag.strip("-").replace("-", "_")
        shared = f" in {self.num_processes} processes" if self.num_processes > 1 else ""
        return (
            f"{setting}: {self.num_images} images of {self.image_size_px} px{shared} do not fit the memory of "
            f"{_describe_memory(self.device)} in {self.work}"
        )


def within_memory(work: Callable[[], Value], demand: Demand, take_step: Callable[[int], object]) -> Value:
    """Return what `work` returns; where it needs more memory than there is, find out which batch fits.

    take_step(num_images) does in memory what a step of the work does, on images that it makes up; it is called with a
    half of the images, a quarter and so on, until one fits. Of several processes none can take a step without the
    others, so nothing is tried there. Raises BatchTooLargeError, which names the batch that fitted.
    """
    if _has_room(demand):
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            _let_go(error)
    # Out of the handler: until it is left, the failure is kept, with the tensors of every function that it passed.
    raise BatchTooLargeError(f"{demand.describe()}; {_remedy(demand, take_step)}")


def _has_room(demand: Demand) -> bool:
    """Whether what is known of a step fits the memory of a CPU: a system may end a process that fills more."""
    image_bytes = max(pixel_bytes(demand.image_size_px), demand.image_bytes)
    own_bytes = image_bytes * demand.num_images // demand.num_processes
    return demand.device.type != "cpu" or own_bytes <= (obtainable_bytes() or own_bytes)


def pixel_bytes(size_px: int) -> int:
    """Bytes of a square image as a model gets it, three channels of float32."""
    return 12 * size_px**2


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error, or one in whose handling it was raised, is a lack of memory of a device or the host."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, (torch.OutOfMemoryError, MemoryError)):
            return True
        if isinstance(found, RuntimeError) and any(each in str(found) for each in _MESSAGES):
            return True
        found = found.__cause__ or found.__context__
    return False


def describe_out_of_memory(error: BaseException) -> str:
    """Say in one line what is left to say where no batch is known to be the reason."""
    reason = " ".join((str(error) or type(error).__name__).split())[:_MOST_SHOWN]
    return f"out of memory ({reason}); smaller batches need less"


def _remedy(demand: Demand, take_step: Callable[[int], object]) -> str:
    if demand.num_processes > 1:
        return f"a smaller {demand.flag} needs less (a run of one process tries which one fits)"
    fitting = _largest_that_fits(demand, take_step)
    if fitting is None:
        return f"not even {demand.least} {'does' if demand.least == 1 else 'do'}"
    return f"{fitting} would" if demand.flag is None else f"{demand.flag} {fitting} does"


def _largest_that_fits(demand: Demand, take_step: Callable[[int], object]) -> int | None:
    num_images = demand.num_images // 2
    while num_images >= demand.least:
        if _fits(num_images, demand.device, take_step):
            return num_images
        num_images //= 2
    return None


def _fits(num_images: int, device: torch.device, take_step: Callable[[int], object]) -> bool:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        with refusing_more_than_available() if device.type == "cpu" else nullcontext():
            take_step(num_images)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        _let_go(error)
        return False
    return True


def _let_go(error: BaseException) -> None:
    """Free what the functions held that an error has passed, and those of the errors before it."""
    found: BaseException | None = error
    while found is not None:
        traceback.clear_frames(found.__traceback__)
        found = found.__cause__ or found.__context__


def _describe_memory(device: torch.device) -> str:
    if device.type == "cuda":
        name, num_bytes = torch.cuda.get_device_name(device), torch.cuda.get_device_properties(device).total_memory
    else:
        name, num_bytes = "this machine", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if (limit := memory_limit()) is not None and limit < num_bytes:
            name, num_bytes = "this process's control group", limit
    return f"{name} ({num_bytes / 2**30:.0f} GiB)"
