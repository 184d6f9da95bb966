import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from scipy.stats import ttest_1samp

from dogs_accel.evaluation.intervals import mean_interval
from dogs_accel.evaluation.predictions import Predictions
from dogs_accel.experiment.outcome import describe_results
from dogs_accel.plots import COLOURS
from dogs_accel.results.comparison import (
    MEASURES,
    best_and_runner_up,
    best_per_family,
    comparison_table,
    learning_curves,
    repeats_table,
    styles_of,
    write_comparison,
)
from dogs_accel.results.figures import comparison_figure, learning_curves_figure
from dogs_accel.results.folder import RunsFolder, read_runs_folder
from dogs_accel.results.layout import METRICS_FILE, history_file, logits_file
from dogs_accel.results.record import FINISHED, RunConfig, RunRecord
from dogs_accel.results.run import Run
from dogs_accel.training.phases import strategy_phases
from tests.support.finished_folders import PLAIN


def finished(model, family, strategy, accuracy, seconds, seed=42):
    """A run of 2,000 test images of 4 classes, that scored what is said."""
    name = f"{model}_{strategy}_seed{seed}"
    config = RunConfig(seed=seed, family=family, phases=[], dataset="none", strategy=strategy, batch_size=32,
                       image_size=224, model_name=model, num_classes=4, total_params=23_753_912)  # fmt: skip
    record = RunRecord(run_id=model, run_name=name, state=FINISHED, config=config, training_seconds=seconds)
    metrics = {
        "accuracy": accuracy,
        "accuracy_ci95": [accuracy - 0.01, accuracy + 0.01],
        "macro_f1": accuracy - 0.005,
        "weighted_f1": accuracy + 0.001,
        **dict.fromkeys(("macro_precision", "weighted_precision", "macro_recall", "weighted_recall"), accuracy),
        "ece": 0.04,
        "intervals": {
            "accuracy": [accuracy - 0.01, accuracy + 0.01],
            "macro_f1": [accuracy - 0.016, accuracy + 0.005],
            "ece": [0.03, 0.045],
        },
    }
    labels = np.repeat(np.arange(4), 500)
    right = np.random.default_rng(round(1e4 * accuracy) + seed).random(2000) < accuracy
    logits = np.eye(4, dtype=np.float32)[np.where(right, labels, (labels + 1) % 4)] * 3
    test = Predictions(logits, labels, np.arange(2000).astype(np.str_))
    return Run(Path("/none") / name, record, {METRICS_FILE: metrics, logits_file("test"): test})


# The published comparison, whose best rows are known.
RUNS = [
    finished("ResNet-50", "cnn", "full", 0.8557, 227.08),
    finished("ResNet-50", "cnn", "staged", 0.8655, 205.03),
    finished("ViT-B/16", "vit", "full", 0.9077, 943.43),
    finished("ViT-B/16", "vit", "staged", 0.9348, 755.21),
]


def test_the_published_columns_come_first():
    columns = "Model,Family,Params,Training strategy,Test accuracy,Macro F1,Weighted F1,ECE,Train time (s),Params(M)"
    more = "Macro precision,Weighted precision,Macro recall,Weighted recall,MB,GMACs,GFLOPs,Latency (ms),Images/s,"
    more += "Peak memory (MB)"
    assert ",".join(comparison_table(RUNS).columns) == f"{columns},{more}"
    assert comparison_table(RUNS)["Params(M)"].tolist() == [23.75] * 4


def test_best_per_family():
    best = best_per_family(comparison_table(RUNS))
    assert best["Best strategy"].tolist() == ["staged", "staged"]
    assert best["Family"].tolist() == ["CNN", "Transformer"]
    assert best["Accuracy"].tolist() == [0.8655, 0.9348]


@pytest.mark.parametrize("runs", [RUNS, RUNS[:1]])
def test_files(tmp_path, runs):
    paths = write_comparison(tmp_path, runs, PLAIN)
    assert [str(path.relative_to(tmp_path)) for path in paths] == [
        "model_comparison.csv",
        "best_per_family_comparison.csv",
        "comparison_overview.png",
        "wandb_export/runs_summary.csv",
        "pairwise_comparison.csv",
    ]
    assert len(pd.read_csv(paths[4])) == 3 * len(runs) * (len(runs) - 1) // 2
    assert pd.read_csv(paths[0])["Test accuracy"].tolist() == [run.metrics["accuracy"] for run in runs]
    assert paths[2].read_bytes().startswith(b"\x89PNG")
    assert pd.read_csv(paths[3])["config.batch_size"].tolist() == [32] * len(runs)


def history(stages):
    """Epochs of so many phases, with scores of their own."""
    rows = [(stage, at) for stage, num in enumerate(stages, start=1) for at in range(num)]
    table = pd.DataFrame(rows, columns=["stage", "epoch"])
    table["epoch_total"] = np.arange(1, len(rows) + 1)
    for at, column in enumerate(("train_loss", "val_loss", "train_acc", "val_acc")):
        table[column] = (at + 1) / (table["epoch_total"] + 1)
    return table


def with_history(run, *stages):
    table = history(stages)
    return Run(run.folder, run.record, {**run._known, history_file(run.name): table})


def test_learning_curves_show_every_run_over_all_its_phases():
    runs = [with_history(RUNS[0], 4), with_history(RUNS[1], 2, 3), RUNS[2], with_history(RUNS[3], 1, 1, 2)]
    curves = learning_curves(runs)
    assert [each.label for each in curves] == [f"{run.model}, {run.schedule}" for run in (runs[0], runs[1], runs[3])]
    figure = learning_curves_figure(curves)
    titles = ["Training loss", "Validation loss", "Training accuracy", "Validation accuracy"]
    assert [axes.get_title() for axes in figure.axes] == titles
    for at, axes in enumerate(figure.axes):
        drawn, bars = axes.lines[::2], axes.lines[1::2]
        for each, line in zip(curves, drawn, strict=True):
            epochs = each.history["epoch_total"]
            assert line.get_xdata().tolist() == epochs.tolist()
            assert line.get_ydata() == pytest.approx((at + 1) / (epochs + 1))
            assert line.get_color() == COLOURS[each.style.colour]
        assert [bar.get_xdata().tolist() for bar in bars] == [[], [2], [1, 2]]
    # Training and validation have one scale.
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim() != figure.axes[2].get_ylim()
    # The colours are those of the other figures, where the third run is too.
    bars = comparison_figure(comparison_table(runs), [COLOURS[style.colour] for style in styles_of(runs)], {}).axes[0]
    colours = [to_hex(bar.get_facecolor()) for bar in bars.patches]
    assert [line.get_color() for line in figure.axes[0].lines[::2]] == [colours[at] for at in (0, 1, 3)]
    assert len(set(colours)) == 4


def test_names_of_curves_are_drawn_as_they_are():
    runs = [with_history(finished(name, "cnn", "full", 0.5, 1), 2) for name in ("_hidden", "$\\frac{$", "x" * 200)]
    (legend,) = learning_curves_figure(learning_curves(runs)).legends
    shown = [text.get_text() for text in legend.get_texts()]
    assert [text[:8] for text in shown] == ["_hidden,", "$\\frac{$", "xxxxxxxx"]
    assert max(map(len, shown)) == 90
    assert not any(text.get_parse_math() for text in legend.get_texts())


def test_curves_are_written_where_there_is_a_history(tmp_path, undrawn):
    names = [path.name for path in write_comparison(tmp_path, [with_history(RUNS[0], 3), RUNS[1]], PLAIN)]
    assert names[2:4] == ["comparison_overview.png", "learning_curves.png"]


def test_two_rows_of_one_name_are_two_rows():
    runs = [RUNS[0], dataclasses.replace(RUNS[0].record, run_name="other")]
    table = comparison_table([RUNS[0], Run(Path("/none/other"), runs[1], RUNS[0]._known)])
    figure = comparison_figure(table, COLOURS[:2], {})
    assert [len(axes.patches) for axes in figure.axes] == [2] * 4
    assert [bar.get_y() + bar.get_height() / 2 for bar in figure.axes[0].patches] == [0, 1]


def test_long_names_leave_the_panels_their_room():
    strategy = "Head only for 8 epochs, head on cached features without augmentation"
    table = comparison_table([finished("m", "cnn", strategy, 0.5, 1.0)])
    figure = comparison_figure(table, COLOURS[:1], {})
    lines = figure.axes[0].get_yticklabels()[0].get_text().split("\n")
    assert " ".join(lines) == f"m {strategy}"
    assert max(map(len, lines)) <= 36
    figure.draw_without_rendering()
    notes = [axes.texts[-1].get_window_extent() for axes in figure.axes]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(notes))


# The second configuration has the luckiest seed and the lower mean; the last one has run once.
REPEATS = [
    finished("ResNet-50", "cnn", "full", 0.80, 10.0, 7),
    finished("ResNet-50", "cnn", "full", 0.82, 11.0, 8),
    finished("ResNet-50", "cnn", "full", 0.84, 15.0, 9),
    finished("ResNet-50", "cnn", "staged", 0.70, 20.0, 7),
    finished("ResNet-50", "cnn", "staged", 0.90, 20.0, 8),
    finished("ViT-B/16", "vit", "full", 0.91, 30.0, 7),
]


def test_runs_of_several_seeds_are_rows_with_their_seed():
    table = comparison_table(REPEATS)
    assert list(table.columns) == [*comparison_table(RUNS).columns, "Seed"]
    assert table["Seed"].tolist() == [7, 8, 9, 7, 8, 7]
    assert table["Test accuracy"].tolist() == [0.80, 0.82, 0.84, 0.70, 0.90, 0.91]


def test_costs_are_columns_of_their_model(full_folder):
    table = comparison_table(read_runs_folder(full_folder).runs).set_index("Model")
    costs = ["MB", "GMACs", "GFLOPs", "Latency (ms)", "Images/s", "Peak memory (MB)"]
    assert list(table.columns)[-6:] == costs
    expected = [4 * 23.753912, 4.089184256, 8.178368512, 6.2, 32 / 0.124, 5 * 23.753912]
    for row in table.loc["ResNet-50", costs].to_numpy():
        assert row == pytest.approx(expected)


def test_what_earlier_versions_did_not_measure_is_blank():
    old = [finished("ResNet-50", "cnn", "full", accuracy, 10.0, seed) for accuracy, seed in ((0.80, 7), (0.82, 8))]
    for run in old:
        for average, score in itertools.product(("macro", "weighted"), ("precision", "recall")):
            del run.metrics[f"{average}_{score}"]
    assert comparison_table(old)[["Macro precision", "MB", "Latency (ms)"]].isna().all(axis=None)
    assert repeats_table(old)["Macro precision mean"].isna().all()
    assert best_per_family(comparison_table(old))["Accuracy"].tolist() == pytest.approx([0.81])


def test_repeats_by_hand():
    table = repeats_table(REPEATS)
    assert table["Training strategy"].tolist() == ["full", "staged", "full"]
    assert table["Seeds"].tolist() == [3, 2, 1]
    assert table["Test accuracy mean"].tolist() == pytest.approx([0.82, 0.80, 0.91])
    assert table["Test accuracy SD"].tolist() == pytest.approx([0.02, 0.02**0.5, np.nan], nan_ok=True)
    # Of Student's t with 2 and with 1 degree of freedom, as tables print it.
    half = [4.302653 * 0.02 / 3**0.5, 12.706205 * 0.1, np.nan]
    assert table["Test accuracy 95 % low"].tolist() == pytest.approx(
        [0.82 - half[0], 0, np.nan],
        nan_ok=True,
        rel=1e-6,  # the second one would begin at -0.47
    )
    assert table["Test accuracy 95 % high"].tolist() == pytest.approx(
        [0.82 + half[0], 1, np.nan], nan_ok=True, rel=1e-6
    )
    assert table["Train time (s) mean"].tolist() == [12, 20, 30]
    assert table["Train time (s) SD"].tolist() == pytest.approx([7**0.5, 0, np.nan], nan_ok=True)
    assert list(table.columns) == [
        "Model", "Family", "Training strategy", "Seeds",
        *(f"{measure} {what}" for measure in MEASURES for what in ("mean", "SD", "95 % low", "95 % high")),
    ]  # fmt: skip


@pytest.mark.parametrize("num", [2, 3, 10])
def test_the_interval_is_that_of_scipy(num):
    values = np.random.default_rng(num).normal(0.9, 0.01, num)
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean_interval(pd.Series(values)) == pytest.approx((expected.low, expected.high))


def test_equal_runs_say_nothing_of_how_sure_their_mean_is():
    assert np.isnan(mean_interval(pd.Series([0.5, 0.5, 0.5]))).all()


@pytest.mark.fault(
    "Scores and figures", "a score without an interval, in a figure", "drawn without a bar, and the reason stands below"
)
def test_a_score_without_an_interval_is_drawn_with_the_reason():
    intervals = {"Macro F1": [None, None, [0.9, 0.92], [0.91, 0.94]], "ECE": [None] * 4}
    intervals["Test accuracy"] = [[row, 0.999] for row in comparison_table(RUNS)["Test accuracy"]]
    figure = comparison_figure(comparison_table(RUNS), COLOURS[: len(RUNS)], intervals, reasons=["nothing to vary"])
    figure.canvas.draw()
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert "2 of 4 without an interval" in texts
    assert "no interval" in texts
    assert figure.get_supxlabel() == "no interval: nothing to vary"


def test_the_best_is_of_the_highest_mean_and_not_the_luckiest_seed():
    best = best_per_family(comparison_table(REPEATS))
    assert best["Best strategy"].tolist() == ["full", "full"]
    assert best["Accuracy"].tolist() == pytest.approx([0.82, 0.91])
    assert best["Macro F1"].tolist() == pytest.approx([0.815, 0.905])
    assert best["Train time (s)"].tolist() == [12, 30]
    assert best["Seeds"].tolist() == [3, 1]


def test_files_of_repeats(tmp_path):
    paths = write_comparison(tmp_path, REPEATS, PLAIN)
    assert [path.name for path in paths][-1] == "seeds_comparison.csv"
    assert [path.stat().st_size > 0 for path in paths] == [True] * 6
    pd.testing.assert_frame_equal(pd.read_csv(paths[-1]), repeats_table(REPEATS))
    assert paths[-1].read_text().splitlines()[3].startswith("ViT-B/16,Transformer,full,1,0.91,,,,")


def words(text):
    return [" ".join(line.split()) for line in text.splitlines()]


def test_the_text_of_one_seed_has_each_runs_own_interval(tmp_path):
    write_comparison(tmp_path, RUNS[:1], PLAIN)
    header, first, empty, written, *_ = words(describe_results(RunsFolder(tmp_path, RUNS[:1])))
    assert header == "Model Training strategy Test accuracy 95 % interval Macro F1 ECE Train time (s)"
    assert first == "ResNet-50 full 0.8557 0.8457 to 0.8657 0.8507 0.0400 227.1"
    assert (empty, written) == ("", f"written to {tmp_path}")


def test_the_text_of_repeats_has_the_means(tmp_path):
    write_comparison(tmp_path, REPEATS, PLAIN)
    assert words(describe_results(RunsFolder(tmp_path, REPEATS)))[:5] == [
        "Model Training strategy Seeds Test accuracy 95 % interval Macro F1 ECE Train time (s)",
        "ResNet-50 full 3 0.8200 0.7703 to 0.8697 0.8150 0.0400 12.0",
        "ResNet-50 staged 2 0.8000 0.0000 to 1.0000 0.7950 0.0400 20.0",
        "ViT-B/16 full 1 0.9100 0.9050 0.0400 30.0",
        "means; 95 % interval of the mean over 2 or 3 seeds (Student's t)",
    ]


def test_the_text_has_the_pairs_that_matter(tmp_path):
    """The best of each family, and the strategies of each model: 3 of the 6 pairs."""
    write_comparison(tmp_path, RUNS, PLAIN)
    pairs = pd.read_csv(tmp_path / "pairwise_comparison.csv")
    lines = words(describe_results(RunsFolder(tmp_path, RUNS)))[6:10]
    assert lines[0] == ("differences in test accuracy, with 95 % intervals, p values and words corrected for 6 pairs:")
    assert [line.split(":")[0] for line in lines[1:]] == [
        "ResNet-50_staged_seed42 against ResNet-50_full_seed42",
        "ViT-B/16_staged_seed42 against ResNet-50_staged_seed42",
        "ViT-B/16_staged_seed42 against ViT-B/16_full_seed42",
    ]
    assert "no difference shown" in lines[1]
    row = pairs[(pairs["run_a"] == "ResNet-50_staged_seed42") & (pairs["run_b"] == "ViT-B/16_staged_seed42")].iloc[0]
    assert lines[2].endswith(f"{row.difference:+.3f} ({row.low:.3f} to {row.high:.3f}), McNemar p < 0.001")


def test_the_text_of_repeats_compares_configurations(tmp_path):
    write_comparison(tmp_path, REPEATS, PLAIN)
    lines = words(describe_results(RunsFolder(tmp_path, REPEATS)))[6:9]
    assert [line.split(":")[0] for line in lines[1:]] == [
        "ResNet-50_staged against ResNet-50_full",
        "ViT-B/16_full_seed7 against ResNet-50_full_seed7",
    ]
    assert lines[1].endswith("no difference shown")
    assert "McNemar p" in lines[2]


def test_a_family_of_another_label_has_it_as_its_name():
    runs = [*RUNS, finished("Mixer", "mixer", "full", 0.9, 100.0)]
    assert best_per_family(comparison_table(runs))["Family"].tolist() == ["CNN", "Transformer", "mixer"]


def test_the_runner_up_is_of_another_family_where_there_is_one():
    assert best_and_runner_up(RUNS) == [RUNS[3], RUNS[1]]
    assert best_and_runner_up(RUNS[2:]) == [RUNS[3], RUNS[2]]
    assert best_and_runner_up(RUNS[:1]) == [RUNS[0]]
    third = finished("Mixer", "mixer", "full", 0.9, 100.0)
    assert best_and_runner_up([*RUNS, third]) == [RUNS[3], third]


def test_the_runner_up_of_repeats_is_found_by_means():
    """0.91 against 0.82, the mean of three; the luckiest seed of all but the first has 0.90 and a mean of 0.80."""
    assert best_and_runner_up(REPEATS) == [REPEATS[5], REPEATS[0]]
    assert best_and_runner_up(REPEATS[:5]) == [REPEATS[0], REPEATS[3]]
    assert best_and_runner_up(REPEATS[:3]) == [REPEATS[0]]


def pairs_of(tmp_path, runs):
    write_comparison(tmp_path, runs, PLAIN)
    lines = words(describe_results(RunsFolder(tmp_path, runs)))
    return [line.split(":")[0].replace("_seed42", "") for line in lines if " against " in line]


def test_the_best_of_three_families_are_compared_with_each_other(tmp_path):
    runs = [RUNS[1], RUNS[3], finished("Mixer", "mixer", "full", 0.9, 9.0), finished("Mixer2", "mixer", "full", 0.5, 9)]
    assert pairs_of(tmp_path, runs) == [
        "ViT-B/16_staged against ResNet-50_staged", "Mixer_full against ResNet-50_staged",
        "Mixer_full against ViT-B/16_staged",
    ]  # fmt: skip


def test_of_one_family_the_best_is_compared_with_the_runner_up(tmp_path):
    runs = [finished(name, "cnn", "full", share, 9.0) for name, share in (("A", 0.6), ("B", 0.9), ("C", 0.8))]
    assert pairs_of(tmp_path, runs) == ["C_full against B_full"]


def test_a_strategy_that_settings_made_another_one_does_not_go_by_its_name():
    def schedule(typed, *phases, recipe=""):
        run = finished("ResNet-50", "cnn", "a label", 0.8, 10.0)
        config = dataclasses.replace(run.record.config, phases=[phase.as_dict() for phase in phases])
        run.record = dataclasses.replace(run.record, config=config, strategy_name=typed, recipe_name=recipe)
        return run.schedule

    [full] = strategy_phases("full", "cnn")
    assert schedule("full", full) == schedule("full", dataclasses.replace(full, lr=1.0, epochs=3)) == "full"
    assert schedule("full", dataclasses.replace(full, patience=2)) == "full with settings"
    assert schedule("full-slow", dataclasses.replace(full, patience=2)) == "full-slow"
    assert schedule("", full, recipe="pets-train") == "full, pets-train"


def test_of_many_runs_the_text_names_few_pairs_and_no_single_file(tmp_path, undrawn):
    """Of 6 strategies of one model and 2 of another there are 15 + 1 pairs of strategies, and one of the best."""
    runs = [finished("A", "cnn", f"s{at}", 0.7 + 0.01 * at, 9.0) for at in range(6)]
    runs += [finished("B", "vit", f"s{at}", 0.9 + 0.01 * at, 9.0) for at in range(2)]
    for run in runs:
        folder = tmp_path / run.family / run.name
        folder.mkdir(parents=True)
        (folder / "metrics.json").touch()
    write_comparison(tmp_path, runs, PLAIN)
    lines = words(describe_results(RunsFolder(tmp_path, runs)))
    at = next(place for place, line in enumerate(lines) if line.startswith("differences in"))
    pairs = lines[at + 1 : at + 12]
    assert pairs[0].startswith("B_s1_seed42 against A_s5_seed42:")
    clear = ["no difference shown" not in line for line in pairs[1:10]]
    assert clear == sorted(clear, reverse=True)
    assert any(clear)
    assert pairs[10] == (
        "and 7 more pairs of one model's strategies, none of them with a difference shown (pairwise_comparison.csv)"
    )
    assert "cnn/A_s0_seed42/ (1 file)" in lines
    assert not any("metrics.json" in line for line in lines)
