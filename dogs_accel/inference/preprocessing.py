"""From a file to the input of a model, in words and in numbers, for those who have not our loaders."""

from __future__ import annotations

from typing import Any

from pipelines import Recipe


def describe_preprocessing(recipe: Recipe) -> dict[str, Any]:
    """Lay out the fields of an evaluation recipe that say something; resize is [height, width] or the shorter side."""
    return {
        "decode": "RGB, 8 bit, EXIF orientation ignored, first frame",
        "grey_16_bit": "round(v / 257)",
        "transparency": "over white: round((a v + (255 - a) 255) / 255)",
        "resize": recipe.resize,
        "interpolation": recipe.interpolation,
        "antialias": True,
        "center_crop": recipe.crop,
        "scale": 1 / 255,
        "mean": recipe.mean,
        "std": recipe.std,
        "layout": "NCHW",
    }


def preprocessing_steps(recipe: Recipe) -> list[str]:
    """Say in order what happens between a file and the model."""
    resize = {
        int: f"resize the shorter side to {recipe.resize} px",
        tuple: f"squash to {recipe.resize} (height, width) px, not keeping the aspect",
        type(None): "no resize",
    }[type(recipe.resize)]
    return [
        "decode the first frame to RGB with 8 bits a channel, ignoring the EXIF orientation; grey of 16 bits is "
        "divided by 257 and rounded, and what is transparent is laid over white",
        f"{resize}, {recipe.interpolation} with antialiasing as Pillow has it, rounded to 8 bits",
        f"take the central {recipe.crop} x {recipe.crop} px",
        "divide by 255",
        f"subtract {list(recipe.mean)} and divide by {list(recipe.std)}, red first",
    ]
