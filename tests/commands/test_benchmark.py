"""The command as a person types it: what it writes, whether the files agree, and what it says when it cannot."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from dogs_accel.benchmark import main
from dogs_accel.calibration import expected_calibration_error
from dogs_accel.cost.measure import measure_costs
from dogs_accel.datasets import open_dataset
from dogs_accel.evaluation.predictions import Predictions
from dogs_accel.experiment import estimate
from dogs_accel.experiment import run as run_module
from dogs_accel.experiment.plan import plan_runs
from dogs_accel.experiment.settings.config import BenchmarkConfig
from dogs_accel.experiment.settings.files import read_settings_file
from dogs_accel.inference.trained import load_trained
from dogs_accel.results.folder import choose_run, read_runs_folder
from dogs_accel.runtime.files import sha256
from pipelines import EVAL
from pipelines.store.build import plan_store

RUNS = {
    "cnn/resnet18_full": 1,
    "cnn/resnet18_staged": 2,
    "vit/vit_tiny_patch16_224_full": 1,
    "vit/vit_tiny_patch16_224_staged": 2,
}
FILES_OF_A_RUN = {
    "architecture.csv",
    "architecture.json",
    "architecture.png",
    "best.pt",
    "calibration.png",
    "calibration_bins.csv",
    "classification_report.csv",
    "confusion_matrix_counts.png",
    "confusion_matrix_normalized.png",
    "explanation_scores.csv",
    "explanations",
    "explanations.csv",
    "explanations.json",
    "feature_maps.json",
    "feature_maps.npz",
    "last.pt",
    "metrics.json",
    "misclassified.csv",
    "misclassified_gallery.png",
    "prediction_grid.png",
    "quality_vs_error.csv",
    "quality_vs_error.png",
    "test_logits.npz",
    "top_confusions.csv",
    "training_profile.png",
    "val_logits.npz",
}
METADATA_FILES = {
    "metadata_with_quality.csv", "split_metadata.csv", "normalisation.json", "duplicates.csv", "bad_images.csv",
    *(f"eda/{name}.png" for name in (
        "quality_distributions", "dataset_distributions", "image_size_distribution", "rgb_channel_summary",
        "random_class_samples", "darkest_examples", "brightest_examples", "breed_quality_boxplots",
        "augmented_batch_preview",
    )),
    *(f"eda/{name}.csv" for name in ("split_table", "class_table", "quality_summary")),
}  # fmt: skip


WATCHING = """
import os, sys

def note(event, arguments):
    if event == "socket.getaddrinfo":
        asked = arguments[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg") and isinstance(arguments[1], tuple):
        asked = arguments[1][0]
    else:
        return
    if asked not in (None, "", "localhost", "127.0.0.1", "::1"):
        with open(os.environ["ASKED"], "a") as file:
            print(asked, file=file)

sys.addaudithook(note)
"""
"""Imported by each Python process as it starts: it notes the machines that are asked for or told something."""


def command(*arguments, module="dogs_accel.benchmark", **environment):
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | environment,
    )


@pytest.fixture(scope="module")
def finished(dogs_root, tmp_path_factory):
    """A four-run benchmark of one epoch a phase on a tiny set, as (folder, what it printed).

    Undrawn: whole runs that draw are those of test_resume.py.
    """
    folder = tmp_path_factory.mktemp("runs")
    out, watching = folder / "tiny", folder / "watching"
    watching.mkdir()
    (watching / "sitecustomize.py").write_text(WATCHING)
    done = command(
        "--data", str(dogs_root), "--preset", "demo", "--image-size", "32", "--epochs", "1", "--device", "cpu",
        "--out", str(out), module="tests.support.undrawn_benchmark",
        PYTHONPATH=os.pathsep.join(filter(None, (str(watching), os.environ.get("PYTHONPATH")))),
        ASKED=str(folder / "asked.txt"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out, done.stdout


@pytest.mark.fault(
    "Machine and environment", "a run with W&B at its default, watched for connections", "no other machine is asked"
)
@pytest.mark.slow
def test_no_other_machine_is_asked_or_told_anything(finished, tmp_path):
    asked = finished[0].parent / "asked.txt"
    assert not asked.exists() or asked.read_text() == ""
    # It would be noted.
    (tmp_path / "sitecustomize.py").write_text(WATCHING)
    code = "import socket\ntry: socket.getaddrinfo('host.invalid', 80)\nexcept OSError: pass"
    watched = os.environ | {"PYTHONPATH": str(tmp_path), "ASKED": str(tmp_path / "asked.txt")}
    subprocess.run([sys.executable, "-c", code], env=watched, check=True)
    assert (tmp_path / "asked.txt").read_text() == "host.invalid\n"


@pytest.mark.slow
def test_every_artifact_is_there_and_listed_with_its_checksum(finished):
    out, printed = finished
    for run in RUNS:
        name = run.split("/")[1]
        own = {f"{name}_history.csv", f"{name}_run_metadata.json"}
        own.add("gradcam_gallery.png" if run.startswith("cnn") else "attention_gallery.png")
        assert {path.name for path in (out / run).iterdir()} == FILES_OF_A_RUN | own
    listed = json.loads((out / "MANIFEST.json").read_text())["files"]
    there = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert {name for name in there if not name.startswith("wandb/")} == set(listed) | {"MANIFEST.json"}
    assert {"model_comparison.csv", "best_per_family_comparison.csv", "comparison_overview.png", "config.json",
            "pairwise_comparison.csv", "per_class_comparison.csv", "per_class_comparison.png", "confusion_clusters.csv",
            "dataset.json", "report.html", "environment.json", "wandb_export/runs_summary.csv",
            *METADATA_FILES} <= set(listed)  # fmt: skip
    assert "claims.json" not in there  # nothing was published about generated pictures
    assert all(sha256(out / name) == entry["sha256"] for name, entry in listed.items())
    assert all(name in printed for name in listed if "/explanations/" not in name)
    assert printed.splitlines()[-1] == f"report: {out / 'report.html'}"
    assert "not dogs" in printed.splitlines()[0]


@pytest.mark.slow
def test_the_files_agree_with_the_saved_logits(finished, dogs_root):
    out, _ = finished
    data = open_dataset(dogs_root)
    comparison = pd.read_csv(out / "model_comparison.csv")
    summary = pd.read_csv(out / "wandb_export" / "runs_summary.csv")
    for row, (run, num_epochs) in enumerate(RUNS.items()):
        folder, name = out / run, run.split("/")[1]
        test, val = Predictions.load(folder / "test_logits.npz"), Predictions.load(folder / "val_logits.npz")
        assert test.ids.tolist() == [data.ids[i] for i in data.split("test")]
        assert test.labels.tolist() == data.labels[data.split("test")].tolist()
        accuracy = (test.logits.argmax(axis=1) == test.labels).mean()
        ece = expected_calibration_error(torch.from_numpy(test.logits), torch.from_numpy(test.labels), bins=10)
        metrics = json.loads((folder / "metrics.json").read_text())
        report = pd.read_csv(folder / "classification_report.csv", index_col=0)
        history = pd.read_csv(folder / f"{name}_history.csv")
        metadata = json.loads((folder / f"{name}_run_metadata.json").read_text())
        assert metrics["accuracy"] == accuracy == comparison["Test accuracy"][row]
        assert summary["summary.test/accuracy"][row] == report.loc["accuracy", "f1-score"] == accuracy
        assert metrics["ece"] == ece == comparison["ECE"][row]
        assert report.loc["macro avg", "f1-score"] == pytest.approx(metrics["macro_f1"])
        assert len(history) == num_epochs
        best = history.iloc[history["val_acc"].idxmax()]
        assert metadata["best_epoch"] == best["epoch_total"]
        assert (val.logits.argmax(axis=1) == val.labels).mean() == pytest.approx(best["val_acc"])
        assert summary["run_id"][row] == metadata["run_id"]
        assert list((out / "wandb").rglob(f"run-{metadata['run_id']}.wandb"))
        assert metadata["training_seconds"] == pytest.approx(history["seconds"].iloc[-1])
        assert comparison["Train time (s)"][row] == round(metadata["training_seconds"], 2)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_the_same_seed_gives_the_same_logits(finished, dogs_root, tmp_path):
    out, _ = finished
    arguments = ["--data", str(dogs_root), "--preset", "demo", "--image-size", "32", "--epochs", "1", "--device", "cpu"]
    again = ["--runs", "resnet18_full", "--wandb", "disabled", "--out", str(tmp_path / "again")]
    assert main([*arguments, *again]) == 0
    one, two = (
        Predictions.load(root / "cnn" / "resnet18_full" / "test_logits.npz").logits
        for root in (out, tmp_path / "again")
    )
    np.testing.assert_array_equal(one, two)
    assert not (tmp_path / "again" / "wandb").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_seeds_are_runs_of_their_own_on_one_split(dogs_root, tmp_path, monkeypatch, capsys):
    """The first of several seeds is the run that one seed gives; what the model costs is measured once."""
    arguments = ["--data", str(dogs_root), *TINY]
    measured = []

    def counted(models, **settings):
        measured.append(settings["batch_size"])
        return measure_costs(models, **settings)

    monkeypatch.setattr(run_module, "measure_costs", counted)
    assert main([*arguments, "--seeds", "2", "--out", str(tmp_path / "two")]) == 0
    printed = capsys.readouterr().out
    assert "seed 42, 43" in printed
    assert "95 % interval of the mean over 2 seeds" in printed
    assert measured == [16]
    costs = re.findall(r"the model takes 0\.037 GMACs and [\d.]+ ms an image, [\d,]+ img/s in batches of 16", printed)
    assert len(costs) == 2
    # Nor is it where a run is trained again beside one that has its measurement.
    shutil.rmtree(tmp_path / "two" / "cnn" / "resnet18_full_seed43")
    assert main(["--resume", str(tmp_path / "two")]) == 0
    assert measured == [16]
    one, other = (each.cost for each in read_runs_folder(tmp_path / "two").runs)
    assert one == other
    assert (one.macs, one.setting.image_size, one.setting.num_classes) == (37_013_504, 32, 4)
    assert one.one_image_ms.rounds >= 7
    costs = pd.read_csv(tmp_path / "two" / "model_comparison.csv")
    assert costs["MB"].tolist() == [4 * costs["Params"][0] / 1e6] * 2
    assert costs["Latency (ms)"].tolist() == [one.one_image_ms.median] * 2
    assert main([*arguments, "--out", str(tmp_path / "one")]) == 0
    first, second, alone = (
        Predictions.load(tmp_path / name / "test_logits.npz")
        for name in ("two/cnn/resnet18_full_seed42", "two/cnn/resnet18_full_seed43", "one/cnn/resnet18_full")
    )
    np.testing.assert_array_equal(first.logits, alone.logits)
    assert first.ids.tolist() == second.ids.tolist()
    assert (first.logits != second.logits).any()
    runs, seeds = (pd.read_csv(tmp_path / "two" / f"{name}_comparison.csv") for name in ("model", "seeds"))
    assert runs["Seed"].tolist() == [42, 43]
    assert seeds["Test accuracy mean"].tolist() == pytest.approx([runs["Test accuracy"].mean()])
    summary = pd.read_csv(tmp_path / "two" / "wandb_export" / "runs_summary.csv")
    assert summary["config.seed"].tolist() == [42, 43]
    assert not (tmp_path / "one" / "seeds_comparison.csv").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_cached_features_and_variants_of_a_model_are_labelled_in_the_results(dogs_root, tmp_path):
    """Two variants, one typed in another order: each has its folder, row and record, and its model comes back."""
    plain, typed = "cnn5:filters=4:norm=batch", "cnn5:head_dropout=0.2:norm=batch:head=16+8:filters=4"
    written = "cnn5:filters=4:norm=batch:head=16+8:head_dropout=0.2"
    arguments = ["--data", str(dogs_root), "--preset", "demo", "--image-size", "32", "--models", f"{plain},{typed}"]
    arguments += ["--strategies", "staged", "--epochs", "2", "--device", "cpu", "--wandb", "disabled"]
    arguments += ["--families", f"{written}=wide", "--cache-features", "--profile", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    label = "Head 2 + full fine-tune 2 epochs, head on cached features without augmentation"
    table = pd.read_csv(tmp_path / "out" / "model_comparison.csv")
    assert table["Training strategy"].tolist() == [label] * 2
    assert sorted(table["Model"]) == [
        "cnn5 (filters=4, norm=batch)", "cnn5 (filters=4, norm=batch, head=16+8, head_dropout=0.2)"
    ]  # fmt: skip
    assert json.loads((tmp_path / "out" / "config.json").read_text())["models"] == [plain, typed]
    folder = tmp_path / "out" / "cnn" / "cnn5_filters-4_norm-batch_staged"
    metadata = json.loads((folder / f"{folder.name}_run_metadata.json").read_text())
    assert metadata["cache_features"] is True
    assert [phase["training_flops_per_image"] is None for phase in metadata["profile"]["phases"]] == [True, False]
    history = pd.read_csv(folder / f"{folder.name}_history.csv")
    assert metadata["profile"]["peak_memory_mib"] == pytest.approx(history["peak_memory_mib"].max())
    assert (folder / "trace_2_full_finetune.json.gz").stat().st_size > 1000
    name = "cnn5_filters-4_norm-batch_head-16-8_head_dropout-0_2_staged"
    run = choose_run(read_runs_folder(tmp_path / "out"), name)
    assert (run.family, run.record.identity["model"]) == ("wide", written)
    trained = load_trained(run, torch.device("cpu"))
    predictions = run.predictions("test")
    paths = {path.stem: path for path in dogs_root.rglob("*.jpg")}
    again = trained.logits([paths[each] for each in predictions.ids[:3]])
    np.testing.assert_allclose(again.logits, predictions.logits[:3], rtol=1e-5, atol=1e-6)


@pytest.fixture
def on_photos(shared_data):
    """80 breeds, and too few photos of some for 15 %."""
    return [
        "--data", str(shared_data / "stanford-dogs-mini"), "--preset", "demo", "--models", "resnet18",
        "--strategies", "full", "--epochs", "1", "--image-size", "32", "--device", "cpu", "--wandb", "disabled",
    ]  # fmt: skip


@pytest.mark.fault(
    "Command line",
    "a share for validation or test that leaves a class without an image",
    "refused with shares that work",
)
def test_a_share_of_too_few_photos_is_refused(on_photos, tmp_path, capsys):
    _, error = stop_message([*on_photos, "--out", str(tmp_path)], capsys)
    assert "class '" in error
    assert "0.25 would do" in error


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_real_photos_with_the_loader_that_was_asked_for(on_photos, tmp_path, capsys):
    assert main([*on_photos, "--loader", "dali", "--val-ratio", "0.25", "--out", str(tmp_path / "done")]) == 0
    assert "80 breeds, 355 train / 119 val / 297 test" in capsys.readouterr().out
    metadata = json.loads((tmp_path / "done" / "cnn" / "resnet18_full" / "resnet18_full_run_metadata.json").read_text())
    assert metadata["loaders"] == dict.fromkeys(("train", "val", "test"), "dali")


@pytest.fixture
def short_probes(monkeypatch):
    """A plan is estimated by fewer probes than in its second of each."""
    monkeypatch.setattr(estimate, "_PROBE_SECONDS", 0.02)


@pytest.mark.slow  # it trains for a moment to say how long that takes
@pytest.mark.usefixtures("short_probes")
def test_dry_run_prints_the_plan_and_writes_nothing(dogs_root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["--data", str(dogs_root), "--preset", "demo", "--image-size", "32", "--device", "cpu", "--dry-run"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "head_only(3, 0.003) -> full_finetune(8, 0.001)" in printed
    assert "in all: " in printed
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_gpu_0_without_a_gpu_is_one_line():
    done = command("--gpu", "0")
    assert done.returncode == 2
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("python -m dogs_accel.benchmark: error: --gpu 0: torch ")
    assert "sees 0 CUDA devices; type --device cpu instead" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "/nowhere/dogs"], "/nowhere/dogs"),
        (["--models", "resnet51"], "models: got 'resnet51'"),
        (["--strategies", "half"], "strategies: got 'half'"),
        (["--weights", "/nowhere/w.pth"], "weights: no file '/nowhere/w.pth'"),
        (["--models", "vit_b_16", "--image-size", "50"], "models: cannot build vit_b_16 at 50 px"),
        (["--preset", "paper", "--epochs", "1+2"], "epochs: got 1+2 for 'full', expected 1; one strategy alone"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(dogs_root, tmp_path, arguments, message, capsys):
    data = [] if "--data" in arguments else ["--data", str(dogs_root)]
    arguments = [*data, "--preset", "demo", *arguments] if "--preset" not in arguments else [*data, *arguments]
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--device", "cpu", "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()


@pytest.fixture
def with_bad_files(dogs_root, tmp_path):
    """A copy of the dataset in which a training file is cut short and a test file is gone."""
    root = tmp_path / "dogs"
    shutil.copytree(dogs_root, root)
    data = open_dataset(root)
    cut, gone = Path(data.paths[data.split("train")[0]]), Path(data.paths[data.split("test")[0]])
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    return root, cut, gone


TINY = ("--preset", "demo", "--models", "resnet18", "--strategies", "full", "--image-size", "32", "--epochs", "1",
        "--device", "cpu", "--wandb", "disabled")  # fmt: skip


def stop_message(arguments, capsys):
    """What the command prints where it must end with exit code 2: (stdout, its last line)."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    printed = capsys.readouterr()
    return printed.out, printed.err.splitlines()[-1]


@pytest.mark.fault(
    "Photos",
    "files that cannot be decoded",
    "all are named with their reasons before anything trains",
)
def test_bad_files_stop_before_training_and_are_named(with_bad_files, tmp_path, capsys):
    root, cut, gone = with_bad_files
    gone.unlink()
    out = tmp_path / "out"
    store = tmp_path / "store"
    arguments = ["--data", str(root), *TINY, "--store", str(store), "--out", str(out)]
    printed, error = stop_message(arguments, capsys)
    assert f"store: 72 images of 37 x 37 px, 295.7 kB in {store}, " in printed
    # The store has all rows, and appears once it is known what becomes of the bad files.
    assert plan_store(open_dataset(root, check_files=False).paths, EVAL.at(32), store).num_done == 72
    assert not (store / "index.json").exists()
    assert f"  {cut}: " in printed
    assert f"  {gone}: No such file or directory" in printed
    assert error == (
        f"python -m dogs_accel.benchmark: error: 2 of 72 files cannot be decoded, see {out / 'bad_images.csv'}; "
        "--on-bad-image skip leaves them out"
    )
    assert set(pd.read_csv(out / "bad_images.csv")["image_path"]) == {str(cut), str(gone)}
    assert not (out / "cnn").exists()
    assert "bad_images.csv" in json.loads((out / "MANIFEST.json").read_text())["files"]


@pytest.mark.fault(
    "Photos",
    "files that cannot be decoded, with --on-bad-image skip",
    "left out, counted in the results and listed in bad_images.csv",
)
@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_bad_files_can_be_left_out(with_bad_files, tmp_path, capsys):
    root, cut, gone = with_bad_files
    gone.unlink()
    out = tmp_path / "out"
    assert main(["--data", str(root), *TINY, "--on-bad-image", "skip", "--out", str(out)]) == 0
    assert set(pd.read_csv(out / "bad_images.csv")["image_path"]) == {str(cut), str(gone)}
    ids = Predictions.load(out / "cnn" / "resnet18_full" / "test_logits.npz").ids
    assert gone.stem not in ids
    assert len(ids) == 23
    data = open_dataset(root, check_files=False)
    left = {"train": len(data.split("train")) - 1, "val": len(data.split("val")), "test": 23}
    metadata = json.loads((out / "cnn" / "resnet18_full" / "resnet18_full_run_metadata.json").read_text())
    assert metadata["num_images"] == left
    remain = " / ".join(f"{num} {split}" for split, num in left.items())
    assert f"left out: 2 files; there remain {remain} images" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn", "short_probes")
def test_a_dry_run_leaves_out_what_the_store_knows_to_be_bad(with_bad_files, tmp_path, capsys):
    root, cut, _ = with_bad_files
    arguments = ["--data", str(root), *TINY, "--on-bad-image", "skip", "--store", str(tmp_path / "store")]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert main([*arguments, "--dry-run", "--out", str(tmp_path / "dry")]) == 0
    assert "the files are decoded already" in capsys.readouterr().out
    _, error = stop_message(["--data", str(root), *TINY, "--store", str(tmp_path / "store"), "--dry-run"], capsys)
    assert f"{cut}: " in error


def test_one_store_for_two_sizes_is_refused(dogs_root, tmp_path, capsys):
    arguments = ["--data", str(dogs_root), "--preset", "paper", "--models", "resnet18,timm/tf_efficientnet_b1"]
    arguments += [
        "--device",
        "cpu",
        "--store",
        str(tmp_path / "s"),
        "--out",
        str(tmp_path / "out"),
        "--weights",
        "none",
    ]
    _, error = stop_message(arguments, capsys)
    assert "store: got one folder for images at" in error
    assert not list(tmp_path.iterdir())


@pytest.mark.fault(
    "Photos", "a class or a split of which no file can be decoded", "one line that names it, before training"
)
def test_what_is_left_must_be_enough(dogs_root, tmp_path, capsys):
    root = tmp_path / "dogs"
    shutil.copytree(dogs_root, root)
    data = open_dataset(root)
    arguments = ["--data", str(root), *TINY, "--on-bad-image", "skip", "--out"]
    train = data.split("train")
    for i in train[data.labels[train] == 1]:
        Path(data.paths[i]).unlink()
    _, error = stop_message([*arguments, str(tmp_path / "one")], capsys)
    assert f"no training image of {data.class_names[1]} can be decoded" in error
    for i in data.split("val"):
        Path(data.paths[i]).unlink()
    _, error = stop_message([*arguments, str(tmp_path / "two")], capsys)
    assert "no image of the val split can be decoded" in error


@pytest.mark.fault(
    "Signals and processes",
    "an error in a later run",
    "the runs that had ended keep their files, their comparison and their manifest",
)
@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_what_had_ended_survives_what_stops_the_rest(dogs_root, tmp_path, monkeypatch, capsys):
    from dogs_accel.experiment import execute

    execute_run = execute.execute_run

    def stopped_in_the_second_run(plan, planned, *work):
        if planned.name == "resnet18_staged":
            raise KeyboardInterrupt
        return execute_run(plan, planned, *work)

    monkeypatch.setattr(execute, "execute_run", stopped_in_the_second_run)
    out = tmp_path / "out"
    arguments = ["--data", str(dogs_root), "--preset", "demo", "--models", "resnet18", "--image-size", "32"]
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--epochs", "1", "--device", "cpu", "--wandb", "disabled", "--out", str(out)])
    assert stop.value.code == 130
    assert f"stopped; what had ended is in {out}" in capsys.readouterr().err
    assert pd.read_csv(out / "model_comparison.csv")["Model"].tolist() == ["ResNet-18"]
    assert "cnn/resnet18_full/test_logits.npz" in json.loads((out / "MANIFEST.json").read_text())["files"]


@pytest.mark.slow
def test_a_label_is_the_folder_of_a_models_runs_and_a_variant_a_run_of_its_own(dogs_root, tmp_path, undrawn, capsys):
    out = tmp_path / "labelled"
    assert main([
        "--data", str(dogs_root), "--preset", "demo", "--models", "resnet18", "--families", "resnet18=small-nets",
        "--strategies", "partial,scratch-hot", "--epochs", "1", "--image-size", "32", "--device", "cpu", "--wandb",
        "disabled", "--set", "scratch-hot.lr=0.1", "--recipes", "imagenet-train", "--out", str(out),
    ]) == 0  # fmt: skip
    runs = read_runs_folder(out).runs
    folders = ["small-nets/resnet18_partial", "small-nets/resnet18_scratch-hot"]
    assert [run.folder.relative_to(out).as_posix() for run in runs] == folders
    assert {run.family for run in runs} == {run.record.config.family for run in runs} == {"small-nets"}
    table = pd.read_csv(out / "model_comparison.csv")
    labels = [
        "Last 2 layer groups for 1 epoch, imagenet-train",
        "scratch-hot: from_scratch(1, 0.1, weight_decay=0.05, decay_norms=False), imagenet-train",
    ]
    assert (table["Family"].tolist(), table["Training strategy"].tolist()) == (["small-nets"] * 2, labels)
    assert [run.title for run in runs] == [f"ResNet-18, {label}" for label in labels]
    assert [run.schedule for run in runs] == ["partial, imagenet-train", "scratch-hot, imagenet-train"]
    assert [run.record.eval_recipe["name"] for run in runs] == ["imagenet-eval"] * 2
    assert [run.record.config.phases[0]["lr"] for run in runs] == [1e-3, 0.1]
    assert runs[0].history["trainable_params"].tolist() == [8_393_728 + 512 * 4 + 4]  # the last stage and the head
    pairs = pd.read_csv(out / "pairwise_comparison.csv")[["run_a", "run_b"]].drop_duplicates()
    assert pairs.to_numpy().tolist() == [["resnet18_partial", "resnet18_scratch-hot"]]
    assert "ResNet-18, scratch-hot" in (out / "report.html").read_text()
    # The file of its settings plans the same runs again, and it goes on with no others.
    planned = plan_runs(BenchmarkConfig(**read_settings_file(out / "config.json")))
    assert [(run.name, run.title) for run in planned] == [(run.name, run.title) for run in runs]
    phases = [[phase.as_dict() for phase in run.phases] for run in planned]
    assert phases == [run.record.identity["phases"] for run in runs]
    _, error = stop_message(["--resume", str(out), "--set", "scratch-hot.lr=0.2"], capsys)
    assert "set: got scratch-hot.lr=0.2, but the run in" in error
