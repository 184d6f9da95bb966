"""Stores of a few small photos, against PIL."""

import json
from dataclasses import replace

import numpy as np
from PIL import Image

from pipelines import EVAL
from pipelines.decoding.pil import open_rgb
from pipelines.store.build import build_store

SMALL = replace(EVAL.at(16), resize=(20, 24))

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def build(paths, recipe, folder, **settings):
    build_store(paths, recipe, folder, progress=False, **settings)
    return folder


def pil_pixels(path, recipe):
    height, width = recipe.resize
    return np.asarray(open_rgb(str(path)).resize((width, height), FILTERS[recipe.interpolation]))


def assert_pils(store, paths, recipe):
    for path, row in zip(paths, store.rows.tolist(), strict=True):
        np.testing.assert_array_equal(store.images[row], pil_pixels(path, recipe), err_msg=str(path))


def journalled(folder):
    return [json.loads(line)["row"] for line in (folder / "journal.jsonl").read_text().splitlines()[1:]]


def assert_same_store(folder, other):
    for name in ("pixels.npy", "index.json"):
        assert (folder / name).read_bytes() == (other / name).read_bytes()
