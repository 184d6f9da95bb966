"""Several processes against one: real ones, on the CPU; those that run the command are started by torchrun."""

import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from dogs_accel.benchmark import main
from dogs_accel.datasets import open_dataset
from dogs_accel.evaluation.predictions import Predictions
from dogs_accel.experiment import run
from dogs_accel.experiment.plan import make_plan
from dogs_accel.experiment.settings.config import BenchmarkConfig
from dogs_accel.runtime.processes import ALONE, World
from tests.support import distributed_worker as worker
from tests.support.blank_figures import blank_figures
from tests.support.forked_torchrun import TWO_PROCESSES, ForkedTorchrun, benchmark

ROOT = Path(__file__).parents[2]
BENCHMARK = "tests.support.undrawn_benchmark"
SECONDS = 240
"""After which a command is said to hang."""
MEASURED = ("seconds", "images_per_second", "_s", "_ms", "_mib")
"""How the columns of a history end that differ from run to run."""


def torchrun(num_processes, *arguments, folder):
    """Start a command in several processes of this machine, as a user does."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    # A run of W&B in this process leaves word where its service is, which a command of its own would join.
    environment = {name: value for name, value in os.environ.items() if "WANDB_SERVICE" not in name}
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(num_processes), "--standalone"),
            *map(str, arguments),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )


def start_together(num_processes, work, *arguments):
    """Call a function in several processes that find each other as those of torchrun do, to the end of all."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.preloaded"])
    world = {"WORLD_SIZE": num_processes, "LOCAL_WORLD_SIZE": num_processes, "MASTER_ADDR": "localhost"}
    world |= {"MASTER_PORT": free_port()}
    processes = [
        context.Process(target=in_world, args=(world | {"RANK": rank, "LOCAL_RANK": rank}, work, arguments))
        for rank in range(num_processes)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=SECONDS)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0] * num_processes


def in_world(world, work, arguments):
    """The body of one of several processes."""
    os.environ |= {name: str(value) for name, value in world.items()}
    work(*arguments)


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def finished(started, timeout=SECONDS):
    """The exit code and the output of a command that must end by itself."""
    try:
        return started.finished(timeout)
    except TimeoutError:
        for each in [*psutil.Process(started.pid).children(recursive=True), psutil.Process(started.pid)]:
            each.kill()
        pytest.fail(f"hangs:\n{started.finished(SECONDS)}")


def said(stderr):
    """The lines of the command itself, not of torchrun."""
    return [line for line in stderr.splitlines() if line.startswith("python -m dogs_accel.benchmark:")]


@pytest.fixture(scope="module")
def alone(dogs_root, tmp_path_factory):
    """What one process finds."""
    return json.loads(json.dumps(worker.work(open_dataset(dogs_root), ALONE, tmp_path_factory.mktemp("alone"))))


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)])
def ranks(request, dogs_root, tmp_path_factory):
    """What each of several processes found."""
    out = tmp_path_factory.mktemp("ranks") / "found.json"
    start_together(request.param, worker.main, dogs_root, out)
    return json.loads(out.read_text())


def test_each_process_gets_what_the_first_made_or_its_failure(ranks):
    for rank, found in enumerate(facts["world"] for facts in ranks):
        assert found["broadcast"] == {"rank": 0, "array": [0, 1, 2]}
        assert found["broadcast_failing"] == ["OtherProcessError" if rank else "ValueError", "broken"]
        assert found["broadcast_leaving"] == ["SystemExit", "3"]


@pytest.mark.fault(
    "Signals and processes", "a failure in one of several processes", "all end, and one of them names it"
)
def test_a_failure_in_one_process_ends_all_and_one_of_them_names_it(ranks):
    for rank, found in enumerate(facts["world"] for facts in ranks):
        assert found["on_all_ranks"] == rank * 10
        assert found["in_all_failing"] == ["ValueError" if rank == 1 else "OtherProcessError", "broken in 1"]


def test_values_are_gathered_in_order_and_tensors_added_up_and_copied(ranks):
    num = len(ranks)
    for found in (facts["world"] for facts in ranks):
        assert found["gathered"] == [f"of {rank}" for rank in range(num)]
        assert found["sums"] == [[num * (num + 1) // 2, num * 2**40], 0.5 * num]
        assert found["copied"] == [[0.0, 0.0]] * 3


def test_the_first_process_of_each_machine_goes_before_its_others(ranks):
    last = len(ranks) - 1  # which plays a second machine
    for rank, found in enumerate(facts["world"] for facts in ranks):
        assert found["local_rank_zero_first"] == rank
        assert set(found["order"][:2]) == {"0", str(last)}
        assert found["order"][2:] == [str(other) for other in range(1, last)]
        assert found["first_here_failing"] == [
            "ValueError" if rank == last else "OtherProcessError",
            f"broken in {last}",
        ]
        assert set(found["order_failing"]) == {"0", str(last)}


@pytest.mark.fault("Signals and processes", "more processes than training images", "one line")
def test_fewer_images_than_processes_are_refused_in_all(ranks):
    num = len(ranks)
    for found in ranks:
        assert found["too_few"] == [
            "ValueError", f"train_loader: got {num - 1} images for {num} processes, expected more"
        ]  # fmt: skip


@pytest.mark.fault("Signals and processes", "machines with different images", "refused by name before training")
def test_a_machine_with_other_images_is_refused(ranks):
    said = [found["other_data"] for found in ranks]
    assert [kind for kind, _ in said] == ["OtherProcessError", "ValueError", "OtherProcessError"][: len(ranks)]
    for _, words in said:
        assert words.startswith("data: got 72 images of ")
        assert words.endswith(" as rank 0 has")


@pytest.mark.parametrize("num_images", worker.NUM_TRAIN)
def test_the_batch_of_all_processes_is_that_of_one(ranks, alone, num_images):
    per_rank = [found["trained"][str(num_images)]["steps"] for found in ranks]
    expected = alone["trained"][str(num_images)]["steps"]
    assert {len(steps) for steps in per_rank} == {len(expected)} == {3 * -(-num_images // worker.BATCH_SIZE)}
    for (index, weight), *parts in zip(expected, *per_rank, strict=True):
        assert weight == 1
        counted = [(part, weight) for part, weight in parts if weight]
        assert sorted(i for part, _ in counted for i in part) == sorted(index)
        assert [weight for _, weight in counted] == [len(part) * len(ranks) / len(index) for part, _ in counted]
        assert sum(weight for _, weight in counted) == pytest.approx(len(ranks))
    seen = sorted(i for index, _ in expected for i in index)
    assert seen == sorted(3 * list(range(num_images)))


@pytest.mark.parametrize("num_images", worker.NUM_TRAIN)
def test_gradients_and_histories_are_those_of_one_process(ranks, alone, num_images):
    expected = alone["trained"][str(num_images)]
    gradients = np.array(expected["gradients"])
    assert np.linalg.norm(gradients, axis=1) == pytest.approx(0.1, abs=1e-4)  # all were cut
    tolerance = 1e-5 * np.abs(gradients).max()
    for found in (facts["trained"][str(num_images)] for facts in ranks):
        np.testing.assert_allclose(found["gradients"], gradients, rtol=0, atol=tolerance)
        for row, expected_row in zip(found["history"], expected["history"], strict=True):
            assert not differences(pd.DataFrame([row]), pd.DataFrame([expected_row]), 1e-5)


def test_mixed_images_give_the_same_gradients_in_all_processes_and_every_time(ranks, alone):
    num_images = worker.NUM_TRAIN[0]
    first, *others = (found["mixed"] for found in ranks)
    one, again = first["runs"]
    assert np.isfinite(one["gradients"]).all()
    assert one["gradients"] == again["gradients"]
    assert [row["mix"] for row in one["history"]] == ["mixup_or_cutmix"] * len(one["history"])
    plain = np.array(alone["trained"][str(num_images)]["gradients"])
    assert np.abs(np.array(one["gradients"]) - plain).max() > 1e-2 * np.abs(plain).max()
    # The last batch of an epoch is one image, of the first process, which has no other to be mixed with.
    steps = [[row["index"], step] for row in one["history"] for step in range(num_images // worker.BATCH_SIZE)]
    assert [draw[:2] for draw in first["draws"]] == 2 * steps
    for found in others:
        assert [run["gradients"] for run in found["runs"]] == [one["gradients"]] * 2
        assert found["draws"] == first["draws"]


@pytest.mark.parametrize(("name", "num_images"), worker.EVALUATED)
def test_evaluation_gathers_each_sample_once_in_order(ranks, alone, name, num_images):
    expected = alone["evaluated"][f"{name} {num_images}"]
    for found in (facts["evaluated"][f"{name} {num_images}"] for facts in ranks):
        assert found["ids"] == found["expected_ids"] == expected["ids"]
        assert found["labels"] == expected["labels"]
        assert len(found["ids"]) == num_images
        np.testing.assert_allclose(found["logits"], expected["logits"], rtol=0, atol=1e-5)
        assert found["scores"] == pytest.approx(expected["scores"], abs=1e-6)
        assert found["metrics"] == expected["metrics"] | {
            measure: pytest.approx(expected["metrics"][measure], abs=1e-6) for measure in ("ece", "ece_15")
        }


def test_a_batch_is_shared_evenly(dogs_root, tmp_path):
    config = BenchmarkConfig(
        data=str(dogs_root), preset="demo", val_ratio=0.3, device="cpu", batch_size=8, out=str(tmp_path)
    )
    with pytest.raises(ValueError, match=r"^batch_size: got 8 for 3 processes, which share it, expected a multiple$"):
        make_plan(config, World(rank=0, size=3, local_rank=0, local_size=3))


def arguments_of(dogs_root, out, epochs="1+4"):
    return [
        *("--data", str(dogs_root), "--preset", "demo", "--device", "cpu", "--models", "timm/vit_tiny_patch16_224"),
        *("--strategies", "staged", "--epochs", epochs, "--batch-size", "8", "--image-size", "32"),
        *("--val-ratio", "0.3", "--amp", "off", "--out", str(out)),
    ]


RUN = "vit/vit_tiny_patch16_224_staged"


def history(out):
    return pd.read_csv(out / RUN / f"{Path(RUN).name}_history.csv")


def differences(one, other, tolerance):
    """Columns of two histories that say different things."""
    names = [name for name in one.columns if not name.endswith(MEASURED)]
    assert list(one.columns) == list(other.columns)
    assert len(names) >= 14
    close = {
        name: (one[name] == other[name]).all()
        if one[name].dtype == object or not pd.api.types.is_numeric_dtype(one[name])
        else np.allclose(one[name], other[name], rtol=0, atol=tolerance)
        for name in names
    }
    return [name for name, is_close in close.items() if not is_close]


def flat(values, name=""):
    """The single values of nested dicts and lists, by the way to them."""
    if not isinstance(values, dict | list):
        return {name: values}
    items = values.items() if isinstance(values, dict) else enumerate(values)
    return {path: value for key, each in items for path, value in flat(each, f"{name}.{key}").items()}


def assert_same_results(out, expected):
    """That two folders hold the same experiment, up to the rounding of sums in another order."""
    assert not differences(history(out), history(expected), 5e-3)
    ours, theirs = (json.loads((folder / RUN / "metrics.json").read_text()) for folder in (out, expected))
    for split in (ours, theirs):
        split |= split.pop("val")
    ours, theirs = flat(ours), flat(theirs)
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        near = isinstance(value, float) and isinstance(theirs[name], float)
        assert value == (pytest.approx(theirs[name], abs=5e-3) if near else theirs[name]), name
    for split in ("val", "test"):
        one, other = (Predictions.load(folder / RUN / f"{split}_logits.npz") for folder in (out, expected))
        assert one.ids.tolist() == other.ids.tolist()
        assert one.labels.tolist() == other.labels.tolist()
        np.testing.assert_allclose(one.logits, other.logits, rtol=0, atol=0.02)


def files_of(out):
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if "wandb" not in path.relative_to(out).parts)


@pytest.fixture(scope="module")
def undisturbed(dogs_root, tmp_path_factory):
    """The whole command in one process."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    with blank_figures():
        assert main(arguments_of(dogs_root, out)) == 0
    return out


@pytest.mark.slow
def test_the_command_in_two_processes(dogs_root, undisturbed, tmp_path):
    out = tmp_path / "out"
    process = torchrun(2, "-m", BENCHMARK, *arguments_of(dogs_root, out), folder=tmp_path)
    stdout, stderr = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, stderr
    assert said(stderr) == []
    assert "Warning" not in stderr
    assert stdout.count("preset   demo") == stdout.count("epoch  5/5") == stdout.count("test accuracy") == 1
    assert "batch 8 (4 in each of 2 processes), 64 in evaluation" in stdout
    assert "world    2 processes, learning rates as for the whole batch; BatchNorm sees the images of its own" in stdout
    assert_same_results(out, undisturbed)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert files_of(out) == files_of(undisturbed)
    assert len(list((out / "wandb").glob("offline-run-*"))) == 1
    recorded = json.loads((out / RUN / f"{Path(RUN).name}_run_metadata.json").read_text())
    assert recorded["num_processes"] == 2
    # The first measures with the images that a step of its own has.
    assert recorded["cost"]["batch_size"] == recorded["config"]["batch_size"] // 2
    assert recorded["cost"]["one_image_ms"]["rounds"] >= 7
    assert recorded["config"]["batch_size"] == 8
    assert recorded["bn_sees"].startswith("the images of its own process")
    row = pd.read_csv(out / RUN / f"{Path(RUN).name}_history.csv").iloc[0]
    training_seconds = row["epoch_seconds"] - row["validation_s"]
    assert row["train_images_per_second"] * training_seconds == pytest.approx(recorded["num_images"]["train"])


@pytest.mark.fault(
    "Signals and processes",
    "one of several training processes is killed",
    "all end; --resume goes on, with any number of processes",
)
@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_killed_process_ends_all_and_one_goes_on(dogs_root, undisturbed, tmp_path):
    out = tmp_path / "out"
    started = ForkedTorchrun(TWO_PROCESSES, benchmark, arguments_of(dogs_root, out), tmp_path / "said")
    deadline = time.monotonic() + SECONDS
    history_file = out / RUN / f"{Path(RUN).name}_history.csv"
    while not history_file.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(started.pids[1], signal.SIGKILL)
    children = psutil.Process(started.pid).children(recursive=True)
    code, _, stderr = finished(started, timeout=60)  # much less than collectives wait for each other
    assert code == 1
    assert "rank      : 1 (local_rank: 1)\n  exitcode  : -9" in stderr.partition("Root Cause")[2]
    assert f'File "{ROOT / "dogs_accel"}' not in stderr  # the tracebacks are torchrun's own
    assert not psutil.wait_procs(children, timeout=10)[1]
    num_done = len(history(out))
    assert 1 <= num_done < 5
    assert main(["--resume", str(out)]) == 0
    assert_same_results(out, undisturbed)
    recorded = json.loads((out / RUN / f"{Path(RUN).name}_run_metadata.json").read_text())
    first, second = recorded["sessions"]
    assert (first["num_processes"], second["num_processes"], first["first_epoch"]) == (2, 1, 1)
    assert recorded["profile"]["peak_flops_per_second"] is None
    assert second["first_epoch"] - 1 in (num_done, num_done + 1)  # the checkpoint is written before the history
    assert recorded["num_processes"] == 1
    assert files_of(out) == files_of(undisturbed)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_two_machines_go_on_with_what_one_process_began(dogs_root, undisturbed, tmp_path, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    out = first / "run"
    log = run._log

    def stopping(tracked, row):
        log(tracked, row)
        if row["epoch_total"] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run, "_log", stopping)
        with pytest.raises(SystemExit) as stopped:
            main(arguments_of(dogs_root, out))
        assert stopped.value.code == 130
    port = free_port()
    machines = ["--nnodes", 2, "--rdzv-backend", "static", "--master-addr", "localhost", "--master-port", port]
    agents = [
        ForkedTorchrun(
            [*machines, "--nproc-per-node", 1, "--node-rank", rank], benchmark, ["--resume", "run"],
            tmp_path / f"said {rank}", machine,
        )
        for rank, machine in enumerate((first, second))
    ]  # fmt: skip
    ended = [finished(agent) for agent in agents]
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert "goes on after epoch 2/5" in ended[0][1]
    assert ended[1][1] == ""
    assert list(second.iterdir()) == []
    assert_same_results(out, undisturbed)
    recorded = json.loads((out / RUN / f"{Path(RUN).name}_run_metadata.json").read_text())
    assert [(each["first_epoch"], each["num_processes"]) for each in recorded["sessions"]] == [(1, 1), (3, 2)]


@pytest.mark.slow
@pytest.mark.parametrize("problem", ["flag", "image"])
def test_what_cannot_be_ends_all_with_one_line(dogs_root, tmp_path, problem):
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(dogs_root, data)
    arguments = arguments_of(data, out)
    if problem == "flag":
        at = arguments.index("--device")
        arguments[at : at + 2] = ["--gpu", "0"]
        expected = "rank 0: error: --gpu 0: got it with 2 processes, expected --device cuda or nothing"
    else:
        next(data.glob("Images/*/*.jpg")).write_bytes(b"nothing")
        expected = "rank 0: error: 1 of 72 files cannot be decoded, see "
    code, stdout, stderr = finished(ForkedTorchrun(TWO_PROCESSES, benchmark, arguments, tmp_path / "said"))
    (line,) = said(stderr)
    assert expected in line
    assert code == 1
    assert "rank      : 0 (local_rank: 0)\n  exitcode  : 2" in stderr.partition("Root Cause")[2]
    assert "epoch" not in stdout
