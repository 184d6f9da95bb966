"""Stores of a few small photos, against PIL."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pipelines import EVAL
from pipelines.decoding.pil import open_rgb
from pipelines.store.build import build_store

SMALL = replace(EVAL.at(16), resize=(20, 24))
SHORTER = replace(SMALL, name="shorter", resize=20)
AS_IS = replace(SMALL, name="as-is", resize=None)
EACH_KIND = {"squashed": SMALL, "shorter side": SHORTER, "as it is": AS_IS}
each_kind = pytest.mark.parametrize("recipe", EACH_KIND.values(), ids=EACH_KIND)

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def build(paths, recipe, folder, **settings):
    build_store(paths, recipe, folder, progress=False, **settings)
    return folder


def pil_pixels(path, recipe):
    image = open_rgb(str(path))
    if recipe.resize is None:
        return np.asarray(image)
    size = recipe.resize[::-1] if isinstance(recipe.resize, tuple) else shorter_side(image.size, recipe.resize)
    return np.asarray(image.resize(size, FILTERS[recipe.interpolation]))


def shorter_side(size, px):
    width, height = size
    return (px, int(px * height / width)) if width <= height else (int(px * width / height), px)


def assert_pils(store, paths, recipe):
    for position, path in enumerate(paths):
        expected = pil_pixels(path, recipe)
        np.testing.assert_array_equal(store.image(position), expected, err_msg=str(path))
        if store.images is not None:
            np.testing.assert_array_equal(store.images[store.rows[position]], expected)
    assert len(store.rows) == len(paths)


def journalled(folder):
    return [json.loads(line)["row"] for line in (folder / "journal.jsonl").read_text().splitlines()[1:]]


def assert_same_store(folder, other):
    for name in ("pixels.npy", "index.json"):
        assert (folder / name).read_bytes() == (other / name).read_bytes()
