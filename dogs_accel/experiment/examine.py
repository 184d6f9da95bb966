"""The data examined once, before the first step: every file decoded, its metadata and figures written."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dogs_accel.eda.files import BAD_IMAGES_FILE, Metadata, read_metadata
from dogs_accel.eda.metadata import MetadataReport, describe_metadata, write_metadata
from dogs_accel.eda.run import write_eda
from dogs_accel.eda.scan import ImageScan
from dogs_accel.experiment.data import describe_sizes
from dogs_accel.experiment.loaders import Loaders
from dogs_accel.experiment.plan import Plan
from dogs_accel.results.layout import EDA_FOLDER
from dogs_accel.runtime.terminal import count_text
from dogs_accel.steps import Steps
from pipelines import BadImageError
from pipelines.store.build import filling_stores


@dataclass(frozen=True)
class ExaminedData:
    """What is known of the data once every file was decoded."""

    splits: Mapping[str, NDArray[np.int64]]
    """Positions in the data by split, without the bad files."""
    contents: Mapping[str, str]
    """SHA-256 of the contents of a split's files, in their order."""
    metadata: Metadata | None = None
    """On rank 0 alone, which writes what is made of it."""
    not_made: Mapping[str, str] = field(default_factory=dict)
    """Which figures of it could not be made, and why."""


def examine_data(
    plan: Plan, loaders: Loaders, check: Callable[[ExaminedData], None], *, figures: bool = True
) -> ExaminedData:
    """Decode every image once, fill the stores of this machine with them, and write the metadata and its figures.

    figures: whether those are made. check sees what was found, but for the metadata, before anything is written into
    the folder of results, and may raise. Raises StoreError where a store cannot be filled, and BadImageError where a
    file is bad and --on-bad-image is not skip, or where too little remains: a split without an image, a class without a
    training image.
    """
    data, num_threads, stores = plan.data, plan.config.num_threads, loaders.missing_stores()
    found: list[ExaminedData] = []

    def check_first(scan: ImageScan) -> None:
        found.append(_without_bad(plan.splits, scan))
        check(found[0])

    for text in loaders.describe_missing():
        print(text, flush=True)
    with filling_stores(data.paths, stores, num_threads=num_threads) as hand_on:
        report = write_metadata(
            data, plan.splits, plan.out, num_threads=num_threads, hand_on=hand_on, check=check_first
        )
    print(describe_metadata(report))
    [examined] = found
    _check_rest(plan, report, examined.splits)
    metadata = read_metadata(plan.out)
    steps = Steps(plan.out, "figures of the data")
    recipe = plan.runs[0].train_recipe
    if figures:
        write_eda(metadata, plan.out / EDA_FOLDER, seed=plan.config.seed, recipe=recipe, step=steps.step)
    return dataclasses.replace(examined, metadata=metadata, not_made=steps.failed)


def _without_bad(splits: Mapping[str, NDArray[np.int64]], scan: ImageScan) -> ExaminedData:
    good = {name: index[~np.isin(index, list(scan.problems))] for name, index in splits.items()}
    contents = {
        name: hashlib.sha256("\n".join(scan.digests[i] for i in index).encode()).hexdigest()
        for name, index in good.items()
    }
    return ExaminedData(good, contents)


def _check_rest(plan: Plan, report: MetadataReport, splits: Mapping[str, NDArray[np.int64]]) -> None:
    """Say what is left out. Raises BadImageError where nothing may be, or where too little remains."""
    num_bad, listed = len(report.bad_index), plan.out / BAD_IMAGES_FILE
    if num_bad and plan.config.on_bad_image == "error":
        raise BadImageError(
            f"{num_bad} of {count_text(len(plan.data), 'file')} cannot be decoded, see {listed}; --on-bad-image skip "
            "leaves them out"
        )
    if num_bad:
        print(f"left out: {count_text(num_bad, 'file')}; there remain {describe_sizes(splits)} images")
    for name, index in splits.items():
        if len(index) == 0:
            raise BadImageError(f"no image of the {name} split can be decoded, see {listed}")
    untaught = set(plan.data.labels[plan.splits["train"]]) - set(plan.data.labels[splits["train"]])
    if untaught:
        names = ", ".join(plan.data.class_names[label] for label in sorted(untaught))
        raise BadImageError(f"no training image of {names} can be decoded, see {listed}")
