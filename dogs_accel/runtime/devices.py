"""The device that a command runs on."""

from __future__ import annotations

import re

import torch

from dogs_accel.runtime.processes import ALONE, World


def choose_device(device: str | None = None, gpu: int | None = None, world: World = ALONE) -> torch.device:
    """Pick a device by name (cpu, cuda, cuda:N) or a GPU by index; without either a CUDA device, else the CPU.

    Raises ValueError, which names the flag, for one that torch does not see. Of several processes each gets its own.
    """
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if world.size > 1:
        return _device_of_many(device, gpu, world, num_gpus)
    if gpu is None and device is None:
        return torch.device("cuda:0" if num_gpus else "cpu")
    if device == "cpu":
        return torch.device("cpu")
    if gpu is not None:
        index, flag = gpu, f"--gpu {gpu}"
    elif match := re.fullmatch(r"cuda(?::(\d+))?", str(device)):
        index, flag = int(match[1] or 0), f"--device {device}"
    else:
        raise ValueError(f"device: got {device!r}, expected cpu, cuda or cuda:N")
    if index >= num_gpus:
        sees = f"{num_gpus} CUDA device{'s' * (num_gpus != 1)}"
        instead = f"--gpu {num_gpus - 1}" if num_gpus else "--device cpu"
        raise ValueError(f"{flag}: torch {torch.__version__} sees {sees}; type {instead} instead")
    return torch.device("cuda", index)


def _device_of_many(device: str | None, gpu: int | None, world: World, num_gpus: int) -> torch.device:
    """Pick the device of one of several processes: the GPU of its place on its machine, or the CPU."""
    if gpu is not None or device not in (None, "cpu", "cuda"):
        flag = f"--gpu {gpu}" if gpu is not None else f"--device {device}"
        raise ValueError(
            f"{flag}: got it with {world.size} processes, expected --device cuda or nothing: each takes its own GPU"
        )
    if device == "cpu" or (device is None and num_gpus == 0):
        return torch.device("cpu")
    if world.local_size > num_gpus:
        raise ValueError(
            f"device: got {world.local_size} processes on a machine where torch sees {num_gpus} CUDA devices, "
            "expected one a device (or --device cpu)"
        )
    return torch.device("cuda", world.local_rank)
