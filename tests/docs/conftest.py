"""What the examples of the documentation are run with."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COLOURS = {"daisy": (240, 235, 225), "poppy": (200, 40, 30), "violet": (110, 60, 170)}


@pytest.fixture(scope="session")
def flowers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 3 class folders with 20 pictures each, of about 80 x 60 px; only to be read."""
    root, rng = tmp_path_factory.mktemp("data") / "flowers", np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(20):
            pixels = rng.normal(colour, 40, (60 + number, 80, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:02}.jpg")
    return root
