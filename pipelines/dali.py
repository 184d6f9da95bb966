"""The DALI loader: decode, resize and augment in DALI, on a GPU or, where there is none, on the CPU.

DALI is told what to do with every sample: which file, which crop, which factors. Its own shuffling and random
numbers are not used, so order and augmentation are those of every other loader (`epoch_order`, `draw_params`).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import nvidia.dali.fn as fn
import nvidia.dali.math as dmath
import nvidia.dali.types as types
import torch
from numpy.typing import NDArray
from nvidia.dali import Pipeline
from nvidia.dali.backend import ReleaseUnusedMemory  # type: ignore[attr-defined]  # missing from its stub
from nvidia.dali.data_node import DataNode

from pipelines.augmentation import AugmentParams, draw_params
from pipelines.batch import Batch, Loader, open_rgb
from pipelines.decode import rgb_node
from pipelines.recipe import Recipe

_PREFETCH = 2
_CONTRAST, _SATURATION = 1, 2
# PIL cuts the fraction off where DALI rounds; not quite a half, so that a whole number stays what it is.
_TRUNCATE = 0.4999
_INTERPOLATION = {"bilinear": types.INTERP_LINEAR, "bicubic": types.INTERP_CUBIC}
_DTYPE = {torch.float32: types.FLOAT, torch.float16: types.FLOAT16}

Feed = dict[str, Any]
"""What one batch needs: for each input of the graph a list of B arrays, or an array (B, ...)."""


def _resize(images: DataNode, size: tuple[int, int], recipe: Recipe) -> DataNode:
    return fn.resize(images, size=list(size), interp_type=_INTERPOLATION[recipe.interpolation], antialias=True)


def _jitter(images: DataNode, factors: DataNode, mean: DataNode, grey: DataNode) -> DataNode:
    """Apply brightness, contrast and saturation in each sample's own order, in PIL's 8-bit arithmetic.

    Each of the three blends the image with something: black, the mean of its grey, or its grey. Which one comes
    at each of the three places is data, the weights (3,) of the two that are not black, so that one graph serves
    every order.
    """
    for place in range(3):
        greys = fn.color_space_conversion(images, image_type=types.RGB, output_type=types.GRAY)
        level = dmath.floor(fn.reductions.mean(greys, axes=(0, 1, 2), keep_dims=True) + 0.5)
        # Sums over one channel first: what is done to all three is what takes the time on a CPU.
        other = greys * grey[place] + (level * mean[place] - _TRUNCATE)
        images = fn.cast(images * factors[place] + other, dtype=types.UINT8)
    return images


def _graph_inputs(recipe: Recipe) -> list[str]:
    """Name the inputs that the graph of this recipe has, in their order."""
    inputs = ["name", "crop_anchor", "crop_shape"]
    if recipe.flip:
        inputs += ["flip"]
    if recipe.rotation_deg:
        inputs += ["angle"]
    if recipe.jitters:
        inputs += ["factors", "weight_of_mean", "weight_of_grey"]
    if recipe.erasing:
        inputs += ["erase_anchor", "erase_shape"]
    return inputs


def _feed(names: list[NDArray[np.uint8]], params: AugmentParams) -> Feed:
    """Lay out the inputs of `recipe_graph`; whole numbers are px, which DALI would read as shares were they floats."""
    factors = np.take_along_axis(params.factors, params.order, axis=1)
    return {
        "name": names,
        "crop_anchor": params.crop[:, :2].astype(np.int32),
        "crop_shape": params.crop[:, 2:].astype(np.int32),
        "flip": params.flip.astype(np.int32),
        "angle": params.angle_deg.astype(np.float32),
        "factors": factors.astype(np.float32),
        "weight_of_mean": ((params.order == _CONTRAST) * (1 - factors)).astype(np.float32),
        "weight_of_grey": ((params.order == _SATURATION) * (1 - factors)).astype(np.float32),
        "erase_anchor": params.erase[:, :2].astype(np.float32),
        "erase_shape": params.erase[:, 2:].astype(np.float32),
    }


def recipe_graph(
    recipe: Recipe, source: Callable[[], Feed], *, gpu: bool, dtype: torch.dtype = torch.float32
) -> DataNode:
    """Build the graph of a recipe inside the current pipeline: file names in, normalised (H, W, 3) images out."""
    inputs = _graph_inputs(recipe)

    def select() -> list[Any]:
        feed = source()
        return [feed[name] for name in inputs]

    node = dict(zip(inputs, fn.external_source(source=select, num_outputs=len(inputs), batch=True), strict=True))
    encoded = fn.io.file.read(node["name"])
    images = rgb_node(encoded, gpu=gpu)
    images = _resize(images, recipe.resized(0, 0), recipe)
    images = fn.slice(images, node["crop_anchor"], node["crop_shape"], axis_names="HW")
    if recipe.random_area is not None:
        images = _resize(images, (recipe.crop, recipe.crop), recipe)
    if recipe.flip:
        images = fn.flip(images, horizontal=node["flip"])
    if recipe.rotation_deg:
        images = fn.rotate(images, angle=node["angle"], keep_size=True, interp_type=types.INTERP_NN, fill_value=0)
    if recipe.jitters:
        jitter = (node[name] for name in ("factors", "weight_of_mean", "weight_of_grey"))
        images = _jitter(images, *(param.gpu() if gpu else param for param in jitter))
    images = fn.crop_mirror_normalize(
        images,
        mean=[255 * mean for mean in recipe.mean],
        std=[255 * std for std in recipe.std],
        output_layout="HWC",
        dtype=_DTYPE[dtype],
    )
    if recipe.erasing:
        images = fn.erase(
            images, anchor=node["erase_anchor"], shape=node["erase_shape"], axis_names="HW", fill_value=0.0
        )
    return images


class DaliLoader(Loader):
    """Decodes and augments in DALI with `num_threads` threads; on a GPU no pixel passes through the host."""

    backend = "dali"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._names = [np.frombuffer(os.fsencode(path), dtype=np.uint8) for path in self.paths]
        self._work: Iterator[Feed] = iter(())
        self._device_labels = self.labels.to(self.device)
        self._pipeline: Pipeline | None = self._build()

    def _check(self) -> None:
        super()._check()
        if not isinstance(self.recipe.resize, tuple):
            raise ValueError(
                f"resize: the dali loader squashes to (height, width) only, got {self.recipe.resize!r}; "
                "the torch loader has the others"
            )

    def _build(self) -> Pipeline:
        gpu = self.device.type == "cuda"
        pipeline = Pipeline(
            batch_size=self.batch_size,
            num_threads=self.num_threads,
            device_id=self.device.index if gpu else None,
            prefetch_queue_depth=_PREFETCH,
        )
        with pipeline:
            pipeline.set_outputs(recipe_graph(self.recipe, lambda: next(self._work), gpu=gpu, dtype=self.dtype))
        pipeline.build()
        return pipeline

    def _batches(self, epoch: int, chunks: list[NDArray[np.int64]]) -> Iterator[Batch]:
        assert self._pipeline is not None
        self._drain(self._pipeline)
        started: deque[NDArray[np.int64]] = deque()
        self._work = self._feeds(epoch, chunks, started)
        for _ in chunks:
            yield self._next_batch(self._pipeline, started)

    def _feeds(self, epoch: int, chunks: list[NDArray[np.int64]], started: deque[NDArray[np.int64]]) -> Iterator[Feed]:
        for index in chunks:
            started.append(index)
            sizes = np.tile(np.array(self.recipe.resized(0, 0), dtype=np.int64), (len(index), 1))
            params = draw_params(self.recipe, sizes, self.seed, epoch, index)
            yield _feed([self._names[i] for i in index], params)

    def _next_batch(self, pipeline: Pipeline, started: deque[NDArray[np.int64]]) -> Batch:
        gpu = self.device.type == "cuda"
        stream = torch.cuda.current_stream(self.device) if gpu else None
        try:
            # The default stream's handle means that of the current device, so that has to be this one.
            with torch.cuda.device(self.device) if gpu else nullcontext():
                [output] = pipeline.run(stream)
        except RuntimeError as error:
            self.close()  # a DALI pipeline cannot go on after an error
            for i in np.concatenate([*started, []]).astype(np.int64):
                open_rgb(self.paths[i])  # raises BadImageError with the name of a file that PIL cannot read either
            files = ", ".join(self.paths[i] for i in started[0]) if started else "no file"
            raise RuntimeError(f"DALI failed while loading {files}: {error}") from error
        position = torch.from_numpy(started.popleft())
        if gpu:
            position = position.pin_memory().to(self.device, non_blocking=True)
        # Shared, not copied: this executor gives each output memory of its own, which lives as long as the tensor.
        images = torch.from_dlpack(output.as_tensor()).permute(0, 3, 1, 2)
        return Batch(images, self._device_labels[position], position)

    def _drain(self, pipeline: Pipeline) -> None:
        """Throw away what an abandoned epoch had prefetched, and make the pipeline ready for the next one."""
        self._work = iter(())
        try:
            while True:
                pipeline.run()
        except StopIteration:
            pipeline.reset()

    def close(self) -> None:
        """End DALI's threads and free its memory."""
        super().close()
        self._pipeline = None
        if self.device.type == "cuda":
            ReleaseUnusedMemory()
