"""A folder of class folders as people have them: odd names, links, copies of a system's own files, repeated names."""

import unicodedata
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("001", "1e5", "NA", "True", "café")
"""Names that look like numbers or like nothing, and one whose letters can be composed in two ways."""
LEFT_OUT = {
    "class folder without a photo": 1, "file of another kind": 3, "hidden file": 9, "photo in no class folder": 1,
}  # fmt: skip


def write_untidy_folder(root: Path, per_class: int = 10, parts: tuple[str, ...] = ("",)) -> Path:
    """Write `per_class` pictures of each class into each part; "" is the root itself. Gives the root."""
    for number, part in enumerate(parts):
        form = "NFD" if number else "NFC"
        for label, name in enumerate(CLASSES):
            folder = root / part / unicodedata.normalize(form, name)
            _write_class(folder, label, per_class, seed=number)
    first = root / parts[0]
    (first / "empty").mkdir()
    (first / "empty" / "notes.txt").write_text("nothing yet")
    (first / "Thumbs.db").write_bytes(b"\xd0\xcf")
    (first / "loose.jpg").write_bytes((first / "001" / "0.JPG").read_bytes())
    (first / ".DS_Store").write_bytes(b"\0")
    (first / "001" / "._0.JPG").write_bytes(b"\0\5\x16\7")
    (first / "001" / "Thumbs.db").write_bytes(b"\xd0\xcf")
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX" / "._001").write_bytes(b"\0")
    (first / "NA" / ".git").mkdir()
    (first / "NA" / ".git" / "index").write_bytes(b"\0")
    (first / "NA" / "back").symlink_to(first / "NA", target_is_directory=True)
    return root


def _write_class(folder: Path, label: int, num: int, seed: int) -> None:
    """Write pictures whose colour tells the class: every third in a folder below, one linked from elsewhere."""
    random = np.random.default_rng([seed, label])
    elsewhere = folder.parent / f".elsewhere-{label}"
    elsewhere.mkdir(parents=True)
    (folder / "more" / "deep").mkdir(parents=True)
    for i in range(num):
        pixels = random.integers(0, 90, (40 + i % 3, 48, 3)) + np.array([40 * label, 160 - 40 * label, 90])
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        name = f"{i}{('.JPG', '.jpeg', '.Png')[i % 3]}"
        if i == 1:
            image.save(elsewhere / name)
            (folder / name).symlink_to(elsewhere / name)
        else:
            image.save((folder / "more" / "deep" if i % 3 == 2 else folder) / name)
