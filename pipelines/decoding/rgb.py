"""From what Pillow has opened to 8 bits of red, green and blue: deep greys scaled, transparency over white."""

from __future__ import annotations

import numpy as np
from PIL import Image

_BITS_PER_SAMPLE = 258
"""Tag of a TIFF."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Make an RGB image: grey of 16 bits is divided by 257 and rounded, what is transparent is laid over white.

    Of an animation the first frame. Raises ValueError for other than 8 or 16 bits a channel, which have no one scale
    to 8 bits; fewer, which Pillow scales itself, will do.
    """
    if kind := _other_depth(image):
        raise ValueError(f"{kind} picture, expected 8 or 16 bits a channel")
    image.load()  # some readers know only then what is transparent
    if image.mode.startswith("I"):
        return _from_16_bits(image)
    return _over_white(image) if image.has_transparency_data else image.convert("RGB")


def _other_depth(image: Image.Image) -> str | None:
    """Name the depth of a picture that has no one scale to 8 bits."""
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (32,))[0]
    if image.mode == "F":
        return f"{bits}-bit float"
    if image.mode == "I" and image.format != "PPM":  # whose 16 bits Pillow has in 32
        return f"{bits}-bit signed" if bits == 16 else f"{bits}-bit integer"
    return "12-bit" if image.mode.startswith("I;16") and bits == 12 else None


def _from_16_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.uint16, copy=False)
    eight_bits, rest = np.divmod(values, 257)
    grey = (eight_bits + (rest > 128)).astype(np.uint8)
    if (transparent := image.info.get("transparency")) is not None:
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    """Blend by alpha with white: (a v + (255 - a) 255) / 255, rounded."""
    hidden = image.info.get("transparency")
    if isinstance(hidden, tuple) and max(hidden) > 255:  # of colours of 16 bits, of which Pillow takes the upper 8
        image.info["transparency"] = tuple(value >> 8 for value in hidden)
    rgba = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(rgba.convert("RGB"), mask=rgba.getchannel("A"))
    return white
