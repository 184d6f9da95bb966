"""From a file to the input of a model, in words and in numbers, for those who have not our loaders."""

from __future__ import annotations

from typing import Any

from pipelines import Recipe


def describe_preprocessing(recipe: Recipe) -> dict[str, Any]:
    """Lay out the fields of an evaluation recipe that say something; resize is [height, width] or the shorter side."""
    is_central = recipe.crop_place == "centre"
    return {
        "decode": "RGB, 8 bit, EXIF orientation ignored, first frame",
        "grey_16_bit": "round(v / 257)",
        "transparency": "over white: round((a v + (255 - a) 255) / 255)",
        "resize": recipe.resize,
        "interpolation": recipe.interpolation,
        "antialias": True,
        **({"padding": recipe.padding} if recipe.padding else {}),
        **({"fill": recipe.fill} if recipe.padding or recipe.resize is None else {}),
        **({"center_crop": recipe.crop} if is_central else {"crop": recipe.crop, "crop_place": recipe.crop_place}),
        "scale": 1 / 255,
        "mean": recipe.mean,
        "std": recipe.std,
        "layout": "NCHW",
    }


def preprocessing_steps(recipe: Recipe) -> list[str]:
    """Say in order what happens between a file and the model."""
    how = f"{recipe.interpolation} with antialiasing as Pillow has it, rounded to 8 bits"
    if recipe.resize is None:
        resize = "leave the photo at its size"
    elif isinstance(recipe.resize, tuple):
        resize = f"squash to {recipe.resize} (height, width) px, not keeping the aspect, {how}"
    else:
        resize = f"resize the shorter side to {recipe.resize} px, {how}"
    size, fill = f"{recipe.crop} x {recipe.crop} px", f"the colour {list(recipe.fill)}"
    padding = [f"add {recipe.padding} px of {fill} on each side"] if recipe.padding else []
    crop = f"take the central {size}"
    if recipe.crop_place != "centre":
        crop = f"take the {size} in the {recipe.crop_place.replace('_', ' ')} corner"
    if recipe.resize is None:
        crop += f"; a side that is shorter lies in the middle, with {fill} around it"
    return [
        "decode the first frame to RGB with 8 bits a channel, ignoring the EXIF orientation; grey of 16 bits is "
        "divided by 257 and rounded, and what is transparent is laid over white",
        resize,
        *padding,
        crop,
        "divide by 255",
        f"subtract {list(recipe.mean)} and divide by {list(recipe.std)}, red first",
    ]
