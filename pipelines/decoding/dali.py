"""DALI's decoder as every pipeline here uses it."""

from __future__ import annotations

import nvidia.dali.fn as fn
import nvidia.dali.types as types
from nvidia.dali import Pipeline
from nvidia.dali.data_node import DataNode

HW_DECODER_LOAD = 0.65
"""Share of the JPEG files that the decoder in the chip gets, where a GPU has one; the others are decoded by its cores.
It is DALI's own default in most versions, and the same here in all."""


def rgb_node(
    encoded: DataNode,
    start: DataNode | None = None,
    shape: DataNode | None = None,
    *,
    gpu: bool,
    hw_decoder_load: float = HW_DECODER_LOAD,
) -> DataNode:
    """Decode in the current pipeline as the published loader does, PIL's `convert("RGB")`: not turned by EXIF.

    start, (top, left), and shape, (height, width), say which part is wanted where not all is. Its pixels are those of
    the whole image, also at its edges.
    """
    # Chroma is interpolated as libjpeg does by default and nvJPEG does not.
    on_gpu = {"device": "mixed", "hw_decoder_load": hw_decoder_load, "jpeg_fancy_upsampling": True}
    settings = {"output_type": types.RGB, "adjust_orientation": False, **(on_gpu if gpu else {"device": "cpu"})}
    if start is None:
        return fn.decoders.image(encoded, **settings)
    return fn.decoders.image_slice(encoded, start=start, shape=shape, axes=(0, 1), **settings)


def shut_down(pipeline: Pipeline) -> None:
    """End a pipeline's threads now.

    A pipeline is part of a cycle, so the garbage collector ends it some time later, and should a process have been
    forked meanwhile, it crashes there: it waits for threads that the fork has not taken along.
    """
    pipeline._shutdown()
