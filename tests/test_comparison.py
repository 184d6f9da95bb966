import pandas as pd
import pytest

from dogs_accel.comparison import RunOutcome, best_per_family, comparison_table, write_comparison


def outcome(model, family, strategy, accuracy, seconds):
    return RunOutcome(
        model=model,
        family=family,
        strategy=strategy,
        total_params=23_753_912,
        training_seconds=seconds,
        metrics={
            "accuracy": accuracy,
            "accuracy_ci95": [accuracy - 0.01, accuracy + 0.01],
            "macro_f1": accuracy - 0.005,
            "weighted_f1": accuracy + 0.001,
            "ece": 0.04,
        },
        tracked={"run_id": model, "run_name": strategy, "config.batch_size": 32},
    )


# The published comparison, whose best rows are known.
RUNS = [
    outcome("ResNet-50", "cnn", "full", 0.8557, 227.08),
    outcome("ResNet-50", "cnn", "staged", 0.8655, 205.03),
    outcome("ViT-B/16", "vit", "full", 0.9077, 943.43),
    outcome("ViT-B/16", "vit", "staged", 0.9348, 755.21),
]


def test_columns_are_the_published_ones():
    columns = "Model,Family,Params,Training strategy,Test accuracy,Macro F1,Weighted F1,ECE,Train time (s),Params(M)"
    assert ",".join(comparison_table(RUNS).columns) == columns
    assert comparison_table(RUNS)["Params(M)"].tolist() == [23.75] * 4


def test_best_per_family():
    best = best_per_family(comparison_table(RUNS))
    assert best["Best strategy"].tolist() == ["staged", "staged"]
    assert best["Family"].tolist() == ["CNN", "Transformer"]
    assert best["Accuracy"].tolist() == [0.8655, 0.9348]


@pytest.mark.parametrize("runs", [RUNS, RUNS[:1]])
def test_files(tmp_path, runs):
    paths = write_comparison(tmp_path, runs)
    assert [str(path.relative_to(tmp_path)) for path in paths] == [
        "model_comparison.csv",
        "best_per_family_comparison.csv",
        "comparison_overview.png",
        "wandb_export/runs_summary.csv",
    ]
    assert pd.read_csv(paths[0])["Test accuracy"].tolist() == [run.metrics["accuracy"] for run in runs]
    assert paths[2].read_bytes().startswith(b"\x89PNG")
    assert pd.read_csv(paths[3])["config.batch_size"].tolist() == [32] * len(runs)
