"""Commands whose batch does not fit: one line that names what does, and what it names is so."""

import os

import pytest

from dogs_accel import cli
from dogs_accel.benchmark import main
from dogs_accel.experiment import run
from dogs_accel.inference import trained
from tests.support.forked_torchrun import TWO_PROCESSES, ForkedTorchrun, benchmark
from tests.support.limited_memory import failing, limited_model


def arguments_of(dogs_root, out, *more):
    return [
        "--data", str(dogs_root), "--preset", "demo", "--models", "resnet18", "--strategies", "full", "--epochs", "1",
        "--image-size", "32", "--device", "cpu", "--wandb", "disabled", "--batch-size", "8", "--out", str(out), *more,
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("room", "line"),
    [
        ((4, 99), "batch_size: 8 images of 32 px do not fit the memory of this machine ({}) in the training of "
         "resnet18_full; --batch-size 4 does"),
        ((99, 20), "eval_batch_size: 24 images of 32 px do not fit the memory of this machine ({}) in the "
         "evaluation of resnet18_full test; --eval-batch-size 12 does"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("undrawn")
def test_the_command_ends_in_one_line_and_what_it_says_is_so(dogs_root, tmp_path, monkeypatch, capsys, room, line):
    monkeypatch.setattr(run, "build_model", limited_model(*room))
    monkeypatch.setattr(run, "write_explanations", lambda *_, **__: None)  # whose batches no flag sets
    with pytest.raises(SystemExit) as stop:
        main(arguments_of(dogs_root, tmp_path / "out"))
    assert stop.value.code == 2
    memory = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == f"python -m dogs_accel.benchmark: error: {line.format(memory)}"
    remedy = error.rpartition("; ")[2].removesuffix(" does").split()
    assert main(arguments_of(dogs_root, tmp_path / "again", *remedy)) == 0


@pytest.mark.fault(
    "Machine and environment",
    "memory runs out in training, evaluation or features",
    "one line with the flag and a batch size that fits, which was tried",
)
@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_the_command_ends_in_one_line_wherever_memory_runs_out(dogs_root, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "write_explanations", lambda *_, **__: failing())
    with pytest.raises(SystemExit) as stop:
        main(arguments_of(dogs_root, tmp_path / "out"))
    assert stop.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "python -m dogs_accel.benchmark: error: out of memory (CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 "
        "has ...); smaller batches need less"
    )


@pytest.mark.slow
def test_predict_has_a_batch_size_to_try(tiny_results, dogs_root, monkeypatch, capsys):
    paths = sorted(map(str, dogs_root.glob("Images/*/*.jpg")))[:6]
    prepare = trained.prepare_model

    def limited(model, *arguments):
        model.register_forward_pre_hook(lambda _, inputs: failing() if len(inputs[0]) > 3 else None)
        return prepare(model, *arguments)

    monkeypatch.setattr(trained, "prepare_model", limited)
    command = ["predict", *paths, "--run", str(tiny_results), "--device", "cpu"]
    with pytest.raises(SystemExit) as stop:
        cli.main(command)
    assert stop.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("evaluation of resnet18_full; --batch-size 3 does")
    assert cli.main([*command, "--batch-size", "3"]) == 0


def limited_benchmark(arguments):
    run.build_model = limited_model(4, 99)
    return benchmark(arguments)


@pytest.mark.slow
def test_two_processes_end_and_say_it(dogs_root, tmp_path):
    arguments = [*arguments_of(dogs_root, tmp_path / "out"), "--batch-size", "16"]
    started = ForkedTorchrun(TWO_PROCESSES, limited_benchmark, arguments, tmp_path / "said")
    code, _, stderr = started.finished(240)
    assert code == 1
    said = [line for line in stderr.splitlines() if "dogs_accel.benchmark: rank" in line]
    assert said
    for line in said:
        assert "error: batch_size: 16 images of 32 px in 2 processes do not fit" in line
        assert "a smaller --batch-size needs less" in line
