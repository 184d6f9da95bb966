"""How soon the commands answer: what they import before they do, and how the threads of torch are told to wait."""

import json
import os
import subprocess
import sys

import pytest

from dogs_accel.runtime.threads import bound_spinning, describe_waiting

HEAVY = (
    "torch", "torchvision", "nvidia.dali", "timm", "pandas", "matplotlib", "scipy", "sklearn", "numpy", "PIL", "wandb",
)  # fmt: skip
PROBE = f"""
import json, os, runpy, sys
module, *arguments = sys.argv[1:]
sys.argv[1:] = arguments
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
except SystemExit as stop:
    code = stop.code
imported = [name for name in {HEAVY!r} if name in sys.modules]
print(json.dumps({{"code": code, "imported": imported, "spins": os.environ.get("GOMP_SPINCOUNT")}}))
"""
BENCHMARK, COMMANDS = "dogs_accel.benchmark", "dogs_accel"


def without_own_settings():
    """The environment of somebody who has not said how threads wait."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}


def probe(module, *arguments):
    """What a command answers, as (exit code, lines of stdout, stderr), and what heavy it imported for it."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, module, *map(str, arguments)],
        capture_output=True, text=True, check=True, env=without_own_settings(),
    )  # fmt: skip
    *printed, facts = done.stdout.splitlines()
    found = json.loads(facts)
    assert found["spins"] == "1000"
    return (found["code"], printed, done.stderr), found["imported"]


def answer(module, *arguments):
    """What a command answers for which it imports nothing heavy."""
    answered, imported = probe(module, *arguments)
    assert imported == []
    return answered


@pytest.mark.parametrize("module", [BENCHMARK, COMMANDS])
def test_help_imports_nothing_heavy(module):
    code, printed, _ = answer(module, "--help")
    assert code == 0
    assert printed[0].startswith("usage: ")


@pytest.mark.parametrize(
    "command", ["benchmark", "cost", "download", "eda", "export", "metadata", "parity", "predict", "prepare", "report",
                "throughput"]
)  # fmt: skip
def test_help_of_each_part_imports_nothing_heavy(command):
    code, printed, _ = answer(COMMANDS, command, "--help")
    assert code == 0
    assert printed[0].startswith(f"usage: dogs-accel {command} ")
    assert any(line.split()[:1] == [command] for line in answer(COMMANDS, "--help")[1])


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        (BENCHMARK, ["--epoch-size", "3"], "unrecognized arguments: --epoch-size 3"),
        (BENCHMARK, ["--epochs", "0"], "argument --epochs: got '0', expected an integer >= 1"),
        (BENCHMARK, ["--loader", "turbo"], "argument --loader: invalid choice: 'turbo'"),
        (BENCHMARK, ["--gpu", "0", "--device", "cpu"], "device: got both --gpu 0 and --device cpu, expected one"),
        (BENCHMARK, ["--resume"], "resume: got no folder, expected --resume DIR"),
        (BENCHMARK, ["--resume", "/nowhere"], "resume: /nowhere holds no run"),
        (COMMANDS, [], "the following arguments are required: command"),
        (COMMANDS, ["train"], "argument command: invalid choice: 'train'"),
        (
            COMMANDS,
            ["predict", "a.jpg", "--run", "there", "--top", "0"],
            "argument --top: got '0', expected an integer",
        ),
        (COMMANDS, ["predict", "a.jpg", "--run", "there", "--tops", "5"], "unrecognized arguments: --tops 5"),
        (COMMANDS, ["benchmark", "--epochs", "0"], "dogs-accel benchmark: error: argument --epochs: got '0'"),
        (COMMANDS, ["benchmark", "--gpu", "0", "--device", "cpu"], "dogs-accel benchmark: error: device: got both"),
    ],
)
def test_a_wrong_flag_imports_nothing_heavy(module, arguments, message):
    code, printed, errors = answer(module, *arguments)
    assert code == 2
    assert printed == []
    assert message in errors.splitlines()[-1]


def test_both_spellings_of_the_benchmark_have_the_same_flags():
    texts = ["\n".join(answer(*words, "--help")[1]) for words in ([BENCHMARK], [COMMANDS, "benchmark"])]
    ours, theirs = (text[text.index("options:") :] for text in texts)
    assert "--cache-features" in ours
    assert ours == theirs


@pytest.mark.slow
def test_a_photo_is_answered_without_what_only_training_and_drawing_need(tiny_results, dogs_root):
    photo = next(dogs_root.glob("Images/*/*.jpg"))
    (code, printed, _), imported = probe(COMMANDS, "predict", photo, "--run", tiny_results, "--model", "resnet18_full")
    assert code == 0
    assert str(photo) in printed
    assert {"torch", "torchvision"} <= set(imported)
    assert {"nvidia.dali", "timm", "matplotlib", "wandb"} & set(imported) == set()


def test_a_store_is_planned_and_read_without_dali():
    code = "import sys, pipelines.make, pipelines.cached, pipelines.store.build; print('nvidia.dali' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.slow
def test_several_processes_say_once_what_is_wrong():
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *("-m", BENCHMARK, "--epochs", "0"),
        ],
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("error: argument --epochs: got '0', expected an integer >= 1") == 1
    assert "usage: " not in done.stderr


def test_spinning_is_bounded_where_torch_is_not_there_yet(monkeypatch):
    environ = {"OMP_NUM_THREADS": "1", "GOMP_CPU_AFFINITY": "0-3"}
    with monkeypatch.context() as patch:
        assert not bound_spinning(environ)  # the tests have torch
        assert describe_waiting(environ) == {"GOMP_SPINCOUNT": None, "OMP_WAIT_POLICY": None}
        patch.delitem(sys.modules, "torch", raising=False)
        assert bound_spinning(environ)
    assert environ == {"OMP_NUM_THREADS": "1", "GOMP_CPU_AFFINITY": "0-3", "GOMP_SPINCOUNT": "1000"}
    assert describe_waiting(environ) == {"GOMP_SPINCOUNT": "1000", "OMP_WAIT_POLICY": None}


@pytest.mark.parametrize("own", [{"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "infinity"}])
def test_a_users_own_setting_stays(monkeypatch, own):
    environ = dict(own)
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "torch", raising=False)
        assert not bound_spinning(environ)
    assert environ == own
    assert describe_waiting(environ) == {"GOMP_SPINCOUNT": None, "OMP_WAIT_POLICY": None} | own


def test_the_setting_reaches_the_library_that_torch_computes_with():
    code = "from dogs_accel.runtime.threads import bound_spinning; bound_spinning(); import torch"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, env=without_own_settings() | {"OMP_DISPLAY_ENV": "verbose"},
    )  # fmt: skip
    if "GOMP_" not in done.stderr:
        pytest.skip("torch computes with another library than libgomp")
    assert "GOMP_SPINCOUNT = '1000'" in done.stderr


def test_a_run_records_how_its_threads_waited(tiny_results):
    recorded = json.loads((tiny_results / "environment.json").read_text())
    # Set by the tests, whose processes inherit it, or by whoever runs them.
    assert recorded["threads"] == {"torch": recorded["numerics"]["cpu_threads"], **describe_waiting()}
    assert any(describe_waiting().values())
