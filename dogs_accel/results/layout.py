"""The files of a benchmark's folder by name: what is written under a name is read under the same.

Names of what an earlier room writes stand there: `eda.files`, `evaluation.galleries`, `evaluation.quality_error`,
`explain.run`, `training.checkpoint` and `training.tracking`. Importing this module imports nothing heavy.
"""

from __future__ import annotations

from pathlib import Path

# Of the folder.
CONFIG_FILE = "config.json"
ENVIRONMENT_FILE = "environment.json"
EDA_FOLDER = "eda"
COMPARISON_FILE = "model_comparison.csv"
BEST_FILE = "best_per_family_comparison.csv"
SEEDS_FILE = "seeds_comparison.csv"
OVERVIEW_FIGURE = "comparison_overview.png"
CURVES_FIGURE = "learning_curves.png"
SUMMARY_FILE = "wandb_export/runs_summary.csv"
PAIRWISE_FILE = "pairwise_comparison.csv"
PER_CLASS_FILE, PER_CLASS_FIGURE = "per_class_comparison.csv", "per_class_comparison.png"
CLUSTERS_FILE = "confusion_clusters.csv"
NOT_MADE_FILE = "not_made.json"
"""Which tables over the runs could not be made, and why; there only where there are any."""
REPORT_FILE, CLAIMS_FILE, EXPLORER_FILE = "report.html", "claims.json", "explorer.html"
"""What is made of a folder's other files."""

# Of each run, in <family>/<run>/.
METRICS_FILE = "metrics.json"
CLASSES_FILE = "classification_report.csv"
CONFUSIONS_FILE = "top_confusions.csv"
CONFUSION_COUNTS_FIGURE, CONFUSION_SHARES_FIGURE = "confusion_matrix_counts.png", "confusion_matrix_normalized.png"
CALIBRATION_FILE, CALIBRATION_FIGURE = "calibration_bins.csv", "calibration.png"
PROFILE_FIGURE = "training_profile.png"
_RECORD_SUFFIX = "_run_metadata.json"


def explorer_pictures(page: Path) -> Path:
    """Give the folder of the pictures of an explorer, beside its page; there only where they are too many for that."""
    return page.with_name(f"{page.stem}_pictures")


def run_folder(root: Path, family: str, name: str) -> Path:
    """Give the folder of a run."""
    return root / family / name


def record_path(folder: Path) -> Path:
    """Give the record of the run in a folder, which is the last file that a run writes."""
    return folder / f"{folder.name}{_RECORD_SUFFIX}"


def record_paths(root: Path) -> list[Path]:
    """Find the records of the runs that were begun."""
    return sorted(root.glob(f"*/*/*{_RECORD_SUFFIX}"))


def history_file(name: str) -> str:
    """Name the history of a run: a row an epoch."""
    return f"{name}_history.csv"


def logits_file(split: str, *, tta: bool = False) -> str:
    """Name the predictions of a split, or those by the mean over views of its images."""
    return f"{split}{'_tta' if tta else ''}_logits.npz"
