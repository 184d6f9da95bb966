"""Tables as the metadata pass writes them, of images that do not exist."""

import json

import numpy as np
import pandas as pd

from dogs_accel.eda.files import IMAGE_COLUMNS, METADATA_COLUMNS

NORMALISATION = {
    "train_pixels": {"mean": [0.51, 0.46, 0.41], "std": [0.26, 0.25, 0.27], "num_images": 9, "num_pixels": 90_000},
    "image_means": {"mean": [0.5, 0.45, 0.4], "num_images": 12},
}


def quality_frame(train, test, names=None):
    """A row per image; train[i] and test[i] are the counts of class i; every measure is random."""
    random = np.random.default_rng(0)
    rows = []
    for label, counts in enumerate(zip(train, test, strict=True)):
        name = names[label] if names else f"breed {label}"
        folder = f"n{label:03}-{name.replace(' ', '_').replace('/', '_')}"
        for official, count in zip(("official_train", "official_test"), counts, strict=True):
            for i in range(count):
                image_id = f"n{label:03}_{official[9:]}{i}"
                relative = f"{folder}/{image_id}.jpg"
                width, height = (int(side) for side in random.integers(100, 500, 2))
                path = f"/none/Images/{relative}"
                rows.append([image_id, path, relative, label, name, folder, official, width, height,
                             width / height, *random.uniform(0.1, 0.9, 6)])  # fmt: skip
    return pd.DataFrame(rows, columns=list(METADATA_COLUMNS))


def split_frame(quality):
    """Every third training image of the quality table is for validation."""
    splits = quality[list(IMAGE_COLUMNS)].copy()
    is_train = (splits["official_split"] == "official_train").to_numpy()
    splits["split"] = np.where(is_train, np.where(np.cumsum(is_train) % 3 == 0, "val", "train"), "test")
    return splits.sort_values("split", kind="stable", ignore_index=True)


def write_metadata(folder, quality, normalisation=NORMALISATION):
    folder.mkdir(exist_ok=True)
    quality.to_csv(folder / "metadata_with_quality.csv", index=False)
    split_frame(quality).to_csv(folder / "split_metadata.csv", index=False)
    (folder / "normalisation.json").write_text(json.dumps(normalisation), encoding="utf-8")
    return folder
