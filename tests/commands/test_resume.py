"""A run that is killed, at whatever moment, goes on and ends as if nothing had happened."""

import json
import multiprocessing
import os
import random
import shutil
import time
from pathlib import Path

import pytest

from dogs_accel import plots
from dogs_accel.benchmark import main
from dogs_accel.datasets import open_dataset
from dogs_accel.datasets.synthetic import write_synthetic
from dogs_accel.runtime.files import sha256
from dogs_accel.training.checkpoint import load_checkpoint
from tests.support.same_results import assert_same_results

MOST_SECONDS = 2
"""Until a kill: about what a run takes to train and to evaluate."""
SEED = 20261122
SECOND_PHASE = (
    "optimizer=sgd", "schedule=one_cycle", "unfreeze_every=1", "patience=1", "min_delta=9", "monitor=loss",
    "clip_norm=1", "label_smoothing=0.1", "ema_decay=0.5", "mix=mixup_or_cutmix",
)  # fmt: skip
"""All that a checkpoint must hold, and what moves from step to step. It ends after two epochs."""


def run(arguments):
    """The body of a process: the command, as `python -m dogs_accel.benchmark` runs it."""
    # As in a process of its own, so that its workers are its children and end with it.
    multiprocessing.set_start_method("fork", force=True)
    # Else W&B would ask the service of the tests' own process, if there is one, and find the killed run still there.
    os.environ.pop("WANDB_SERVICE", None)
    plots._DPI = 24  # small pictures are soon drawn, and compared like large ones
    raise SystemExit(main(arguments))


@pytest.fixture(scope="module")
def start():
    """Start the command in a process of its own, forked from one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.preloaded"])

    def started(*arguments):
        process = context.Process(target=run, args=(arguments,))
        process.start()
        return process

    return started


def finish(process):
    process.join(timeout=300)
    assert process.exitcode == 0


@pytest.fixture(scope="module")
def arguments(dogs_root, tmp_path_factory):
    return [
        "--data", str(dogs_root), "--preset", "demo", "--image-size", "32", "--strategies", "staged",
        "--epochs", "1+4", "--device", "cpu", "--store", str(tmp_path_factory.mktemp("resume") / "store"),
        "--set", "staged.head_only.lr=2e-3", *(f"--set=staged.full_finetune.{setting}" for setting in SECOND_PHASE),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(start, arguments, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    finish(start(*arguments, "--out", str(out)))
    return out


@pytest.mark.fault(
    "Signals and processes",
    "a run that is killed again and again, wherever it is",
    "--resume each time; it ends with the bits of an undisturbed run",
)
@pytest.mark.slow
@pytest.mark.parametrize("num_kills", [4, pytest.param(20, marks=pytest.mark.soak)])
def test_a_run_killed_many_times_ends_as_the_undisturbed_one(start, arguments, undisturbed, tmp_path, num_kills):
    out, chance = tmp_path / "killed", random.Random(SEED)
    command = [*arguments, "--out", str(out), "--resume"]
    reached = []
    for kill in range(num_kills):
        process = start(*command)
        # A quarter of the kills at any moment, the others once a run is under way or after another epoch: however
        # slow the machine is, there is some progress, and most of the work is there.
        if files := (None, "*_run_metadata.json", "last.pt", "last.pt")[kill % 4]:
            before = stamps(out, files)
            while stamps(out, files) == before and process.is_alive():
                time.sleep(0.01)
        process.join(timeout=chance.uniform(0, MOST_SECONDS))
        process.kill()
        process.join()
        reached.append(num_epochs(out))
    assert reached == sorted(reached)
    assert reached[-1] > 0
    finish(start(*command))
    assert_same_results(undisturbed, out)
    assert num_epochs(out) == 2 * (1 + 2)
    assert all("ema" in load_checkpoint(path) for path in out.glob("*/*/last.pt"))
    for metadata in out.rglob("*_run_metadata.json"):
        recorded = json.loads(metadata.read_text())
        assert recorded["state"] == "finished"
        # Each W&B run was started again under its own name, and what it left behind is gone.
        assert len(list((out / "wandb").glob(f"offline-run-*-{recorded['run_id']}"))) == 1
    sessions = [json.loads(path.read_text())["sessions"] for path in out.rglob("*_run_metadata.json")]
    assert max(map(len, sessions)) > 1


def stamps(out, files):
    """When the record of each run was written last, with which it begins and ends, or its checkpoint."""
    found = (path for family in ("cnn", "vit") for path in (out / family).glob(f"*/{files}"))
    return {path: path.stat().st_mtime_ns for path in found}


def num_epochs(out):
    """Epochs of all runs that are safe on the disk."""
    return sum(len(load_checkpoint(path)["history"]) for path in out.glob("*/*/last.pt"))


@pytest.mark.fault(
    "Archives and checkpoints",
    "--resume with other images, or with a damaged finished run",
    "refused by name; the folder stays as it is",
)
@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_finished_runs_of_other_images_or_damaged_are_refused(undisturbed, dogs_root, tmp_path, capsys):
    out = tmp_path / "again"
    shutil.copytree(undisturbed, out)
    other = write_synthetic(tmp_path / "other", num_classes=4, train_per_class=12, test_per_class=5, num_workers=1)
    written = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    said = stopped(["--resume", str(out), "--data", str(other), "--store", str(tmp_path / "s")], capsys)
    assert "run_metadata.json is of other images: files or labels of " in said
    # Other pictures under the same names: a loader without a store would not see it.
    replaced = Path(shutil.copytree(dogs_root, tmp_path / "replaced"))
    first, second = (open_dataset(replaced).paths[i] for i in open_dataset(replaced).split("test")[:2])
    shutil.copy(first, second)
    said = stopped(["--resume", str(out), "--data", str(replaced), "--store", str(tmp_path / "r")], capsys)
    assert (
        "run_metadata.json is of other images: contents of files of test have changed since; what was written" in said
    )
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == written
    record = out / "cnn" / "resnet18_staged" / "resnet18_staged_run_metadata.json"
    record.write_text(record.read_text()[:1000])
    assert f"checkpoint: {record} cannot be read as JSON" in stopped(["--resume", str(out)], capsys)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_finished_run_of_an_older_version_is_said_to_be_one(undisturbed, tmp_path, capsys):
    out = shutil.copytree(undisturbed, tmp_path / "older")
    path = out / "vit" / "vit_tiny_patch16_224_staged" / "metrics.json"
    metrics = json.loads(path.read_text())
    del metrics["intervals"]
    path.write_text(json.dumps(metrics))
    assert f"checkpoint: {path} has no intervals, an older version wrote it; remove {path.parent} to run that run" in (
        stopped(["--resume", str(out)], capsys)
    )
    path.unlink()
    assert f"checkpoint: {path}: not found, expected the scores" in stopped(["--resume", str(out)], capsys)


def stopped(arguments, capsys):
    """The last line of a command that must end with exit code 2."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_a_finished_run_is_not_repeated(start, undisturbed, tmp_path):
    out = tmp_path / undisturbed.name  # the report shows it
    shutil.copytree(undisturbed, out)
    before = checksums(out)
    finish(start("--resume", str(out)))
    assert checksums(out) == before


def checksums(out):
    """Of all files but W&B's."""
    return {path: sha256(path) for path in out.rglob("*") if path.is_file() and "wandb" not in path.parts}
