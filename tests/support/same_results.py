"""What two benchmarks of the same settings must have in common."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from dogs_accel.evaluation.predictions import Predictions
from dogs_accel.runtime.files import sha256
from dogs_accel.training.checkpoint import load_checkpoint

PUBLISHED_COLUMNS = 15
TIMED_COLUMNS = ["Train time (s)", "Latency (ms)", "Images/s"]
"""Of the tables over the runs."""
TIMED_PICTURES = {"comparison_overview.png", "training_profile.png", "architecture.png"}


def assert_same_results(one: Path, two: Path):
    """All that two runs of the same settings must have in common: everything but times and names of runs."""
    files = {str(path.relative_to(folder)) for folder in (one, two) for path in folder.rglob("*") if path.is_file()}
    files = sorted(name for name in files if not name.startswith("wandb/"))
    for name in files:
        assert_same_file(one / name, two / name)
    listed = json.loads((two / "MANIFEST.json").read_text())["files"]
    assert set(listed) == set(files) - {"MANIFEST.json"}
    assert all(sha256(two / name) == entry["sha256"] for name, entry in listed.items())


def assert_same_file(one: Path, two: Path):
    assert one.exists(), one
    assert two.exists(), two
    if one.suffix == ".pt":
        states = load_checkpoint(one), load_checkpoint(two)
        for key in ("model", "optimizer"):
            assert_same_tensors(*(state.get(key) for state in states))
    elif one.name == "feature_maps.npz":
        with np.load(one) as first, np.load(two) as second:
            assert first.files == second.files
            for name in first.files:
                np.testing.assert_array_equal(first[name], second[name])
    elif one.suffix == ".npz":
        first, second = Predictions.load(one), Predictions.load(two)
        for field in ("logits", "labels", "ids"):
            np.testing.assert_array_equal(getattr(first, field), getattr(second, field))
    elif one.name.endswith("_history.csv"):
        pd.testing.assert_frame_equal(
            *(pd.read_csv(path).iloc[:, :PUBLISHED_COLUMNS] for path in (one, two)), check_exact=True
        )
    elif one.name in ("model_comparison.csv", "best_per_family_comparison.csv"):
        pd.testing.assert_frame_equal(
            *(pd.read_csv(path).drop(columns=TIMED_COLUMNS, errors="ignore") for path in (one, two)), check_exact=True
        )
    elif one.name == "architecture.csv":
        pd.testing.assert_frame_equal(
            *(pd.read_csv(path).drop(columns=["milliseconds", "time_share"]) for path in (one, two)), check_exact=True
        )
    elif one.suffix in (".json", ".csv") and "run_metadata" not in one.name and one.name not in (
        "config.json", "environment.json", "MANIFEST.json", "architecture.json", "runs_summary.csv", "claims.json"
    ):  # fmt: skip
        assert one.read_text() == two.read_text(), one
    elif one.suffix == ".png" and one.name not in TIMED_PICTURES:
        assert one.read_bytes() == two.read_bytes(), one


def assert_same_tensors(one, two):
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            assert_same_tensors(one[key], two[key])
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, two)
    else:
        assert one == two
