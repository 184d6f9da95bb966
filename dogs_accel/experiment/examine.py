"""The data examined once, before the first step: every file decoded, its metadata and figures written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dogs_accel.eda.files import BAD_IMAGES_FILE, Metadata, read_metadata
from dogs_accel.eda.metadata import describe_metadata, write_metadata
from dogs_accel.eda.run import write_eda
from dogs_accel.experiment.data import describe_sizes
from dogs_accel.experiment.loaders import Loaders
from dogs_accel.experiment.plan import Plan
from dogs_accel.results.layout import EDA_FOLDER
from pipelines import BadImageError
from pipelines.store.build import filling_stores


@dataclass(frozen=True)
class ExaminedData:
    """What is known of the data once every file was decoded."""

    splits: Mapping[str, NDArray[np.int64]]
    """Positions in the data by split, without the bad files."""
    metadata: Metadata | None
    """On rank 0 alone, which writes what is made of it."""


def examine_data(plan: Plan, loaders: Loaders) -> ExaminedData:
    """Decode every image once, fill the stores of this machine with them, and write the metadata and its figures.

    Raises StoreError where a store cannot be filled, and BadImageError where a file is bad and --on-bad-image is not
    skip, or where too little remains: a split without an image, a class without a training image.
    """
    data, num_threads, stores = plan.data, plan.config.num_threads, loaders.missing_stores()
    for text in loaders.describe_missing():
        print(text, flush=True)
    with filling_stores(data.paths, stores, num_threads=num_threads) as hand_on:
        report = write_metadata(data, plan.splits, plan.out, num_threads=num_threads, hand_on=hand_on)
    print(describe_metadata(report))
    bad, listed = report.bad_index, plan.out / BAD_IMAGES_FILE
    if len(bad) and plan.config.on_bad_image == "error":
        raise BadImageError(
            f"{len(bad)} of {len(plan.data)} files cannot be decoded, see {listed}; --on-bad-image skip leaves them out"
        )
    splits = {name: index[~np.isin(index, bad)] for name, index in plan.splits.items()}
    if len(bad):
        print(f"left out: {len(bad)} files; there remain {describe_sizes(splits)} images")
    for name, index in splits.items():
        if len(index) == 0:
            raise BadImageError(f"no image of the {name} split can be decoded, see {listed}")
    untaught = set(plan.data.labels[plan.splits["train"]]) - set(plan.data.labels[splits["train"]])
    if untaught:
        names = ", ".join(plan.data.class_names[label] for label in sorted(untaught))
        raise BadImageError(f"no training image of {names} can be decoded, see {listed}")
    metadata = read_metadata(plan.out)
    write_eda(metadata, plan.out / EDA_FOLDER, seed=plan.config.seed, recipe=plan.runs[0].train_recipe)
    return ExaminedData(splits, metadata)
