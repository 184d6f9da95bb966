"""The report of `dogs-accel parity`, and the command."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dogs_accel.cli import main
from dogs_accel.datasets import open_dataset
from dogs_accel.models.build import build_model
from dogs_accel.models.specs import model_spec
from dogs_accel.parity import measure, run
from dogs_accel.parity.gates import Gate, Limit
from dogs_accel.parity.measure import ParityError
from dogs_accel.parity.run import _maker, amplification, parity_figure
from pipelines import EVAL, RESNET_TRAIN, make_loader
from tests.support.altered_loaders import RESAMPLED, add_levels, altered, check

IMPOSSIBLE = Gate("impossible", (Limit("max", "<", 0),))


@pytest.mark.parametrize(("levels", "factor"), [(0, 128), (1, 128), (2, 64), (3, 64), (42, 4), (128, 1), (255, 1)])
def test_differences_are_amplified_as_far_as_they_can_be_drawn(levels, factor):
    assert amplification(levels) == factor


def test_the_figure_shows_both_images_and_their_amplified_difference(paths):
    where = torch.arange(0, 3 * 64 * 64, 5)
    found = altered(paths, lambda batch: add_levels(batch, where, 3.0 * (batch.index[:, None] + 1)), num_worst=2)
    assert [sample.index for sample in found.worst] == [11, 10]
    figure = parity_figure(found)
    assert len(figure.axes) == 6
    reference, ours, difference = (axes.images[0].get_array().astype(int) for axes in figure.axes[:3])
    np.testing.assert_array_equal(reference, found.worst[0].reference)
    np.testing.assert_array_equal(np.minimum(np.abs(ours - reference) * 4, 255), difference)
    assert figure.axes[2].get_title() == "difference x 4"
    assert figure.axes[0].get_ylabel().splitlines() == [Path(paths[11]).name, "mean 7.2012", "max 36 levels"]
    assert "here the 2 that differ most" in figure.get_suptitle()


def test_the_figure_of_equal_images_says_so(paths):
    found = check(paths, num_worst=3)
    assert "every pixel is the same in all of them; here are the first 3" in parity_figure(found).get_suptitle()
    with pytest.raises(ValueError, match="got no images to draw"):
        parity_figure(check(paths[:2], num_worst=0))


def test_recipes_that_resize_alike_share_a_store(tmp_path):
    def store(recipe):
        return _maker("cached", recipe, tmp_path).keywords["store_dir"]

    assert store(EVAL) == store(RESNET_TRAIN) == tmp_path / "256x256-bilinear"
    assert len({store(EVAL), store(EVAL.at(100)), store(replace(EVAL, interpolation="bicubic"))}) == 3
    assert _maker("dali", EVAL, tmp_path) is make_loader


@pytest.fixture
def command(dogs_root, tmp_path, monkeypatch):
    """Arguments that fit the small dataset, and gates that do not depend on how the loaders resize."""
    monkeypatch.setattr(measure, "gate_for", lambda backend, device: RESAMPLED)
    weights = tmp_path / "weights.pth"
    torch.save(build_model(model_spec("resnet18"), 7, "none").model.state_dict(), weights)
    return ["parity", "--data", str(dogs_root), "--num-images", "10", "--device", "cpu", "--model", "resnet18",
            "--weights", str(weights), "--out", str(tmp_path / "out")]  # fmt: skip


def stopped(arguments):
    """The exit code of a command that does not end well."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return stop.value.code


def test_the_command_compares_all_recipes_and_a_model(command, tmp_path, capsys):
    assert main([*command, "--loader", "dali"]) == 0
    printed = capsys.readouterr().out
    written = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert [(row["loader"], row["recipe"]) for row in written["pixels"]] == [
        ("dali", "eval"), ("dali", "resnet-train"), ("dali", "vit-train"),
    ]  # fmt: skip
    for row in written["pixels"]:
        assert row["passes"]
        assert row["num_images"] == 10
        assert row["gate"] == {"name": "another resampling", "limits": ["99.9th percentile <= 3"]}
        assert len(row["worst"]) == 6
        assert row["worst"][0]["mean"] == max(sample["mean"] for sample in row["worst"])
        figure = tmp_path / "out" / f"parity_dali_{row['recipe']}.png"
        assert Image.open(figure).width > 800
        assert f"  {figure}\n" in printed
        assert f"dali     {row['recipe']:<17}     10  {row['mean']:>7.4f}" in printed
    [answers] = written["models"]
    assert answers["top1_agreement"] == 1
    assert answers["model"] == "ResNet-18"
    assert written["problems"] == []
    assert written["environment"]["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert "not dogs" in printed.splitlines()[0]


def test_a_loader_that_fails_ends_in_exit_code_1(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measure, "gate_for", lambda backend, device: IMPOSSIBLE)
    assert stopped([*command, "--loader", "dali", "--recipe", "eval"]) == 1
    printed = capsys.readouterr()
    assert "FAIL  impossible: largest < 0" in printed.out
    [line] = printed.err.splitlines()
    assert line.startswith("dogs-accel parity: FAILED: loader dali, recipe eval: largest is ")
    assert line.endswith(" levels, expected < 0 (gate impossible)")
    [problem] = json.loads((tmp_path / "out" / "parity.json").read_text())["problems"]
    assert line == f"dogs-accel parity: FAILED: {problem}"


def test_images_that_cannot_be_paired_end_in_exit_code_1(command, monkeypatch, capsys):
    def refuse(*arguments, **settings):
        raise ParityError("loader dali, recipe eval: image 2 comes twice in an epoch")

    monkeypatch.setattr(run, "check_parity", refuse)
    monkeypatch.setattr(run, "compare_logits", refuse)
    assert stopped([*command, "--loader", "dali", "--recipe", "eval"]) == 1
    printed = capsys.readouterr()
    assert "dali     eval              FAIL  loader dali, recipe eval: image 2 comes twice" in printed.out
    assert "\nFAIL  loader dali, recipe eval: image 2 comes twice" in printed.out
    assert printed.err.count("image 2 comes twice in an epoch") == 2


def test_without_weights_the_model_is_left_out_and_the_command_says_so(command, tmp_path, monkeypatch, capsys):
    def refuse(spec, weights):
        assert weights == "imagenet"
        raise OSError("weights: cannot download the ImageNet weights of resnet18 (no network)")

    monkeypatch.setattr(run, "build_pretrained", refuse)
    arguments = [part for part in command if part != "--weights" and not part.endswith("weights.pth")]
    assert main([*arguments, "--loader", "dali", "--recipe", "eval"]) == 0
    said = "no model was asked: weights: cannot download the ImageNet weights of resnet18 (no network)"
    assert said in capsys.readouterr().out
    written = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert written["models"] == []
    assert written["notes"][0].startswith(said)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--loader", "torch"], "loader: got 'torch', expected one of dali"),
        (["--recipe", "train"], "recipe: got 'train', expected some of eval, resnet-train, vit-train, imagenet-eval, "),
        (["--num-images", "0"], "--num-images: got '0', expected an integer >= 1"),
        (["--weights", "none"], "weights: got none, expected imagenet or a file"),
        (["--weights", "/nowhere.pth"], "weights: no file '/nowhere.pth'"),
        (["--device", "tpu"], "device: got 'tpu', expected cpu, cuda or cuda:N"),
        (["--data", "/nowhere"], "/nowhere"),
    ],
)
def test_a_wrong_flag_is_one_line(command, tmp_path, arguments, message, capsys):
    assert stopped([*command, *arguments]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_bad_file_is_named(command, dogs_root, tmp_path, capsys):
    root = tmp_path / "dogs"
    shutil.copytree(dogs_root, root)
    bad = open_dataset(root).paths[0]
    Path(bad).write_bytes(b"no picture")
    assert stopped([*command, "--data", str(root), "--recipe", "eval"]) == 2
    assert f"{bad}: not an image" in capsys.readouterr().err


@pytest.mark.fault(
    "Photos", "a bad photo for `parity`",
    "named before any weights are downloaded, without the folder of a store that is gone by then",
)  # fmt: skip
def test_photos_are_looked_at_before_weights_are_downloaded(command, dogs_root, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "build_pretrained", lambda *_: pytest.fail("it downloads"))
    (tmp_path / "photos" / "a").mkdir(parents=True)
    (tmp_path / "photos" / "b").mkdir()
    for name in ("a/1.jpg", "b/1.jpg"):
        (tmp_path / "photos" / name).write_bytes(b"no picture")
    arguments = [part for part in command if part != "--weights" and not part.endswith("weights.pth")]
    assert stopped([*arguments, "--data", str(tmp_path / "photos"), "--loader", "cached", "--recipe", "eval"]) == 2
    error = capsys.readouterr().err
    assert "a/1.jpg: not an image" in error
    assert "dogs-accel-parity-" not in error  # the stores, which are gone


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_the_loaders_are_exact_on_real_photos(shared_data, tmp_path, capsys):
    root = shared_data / "stanford-dogs-mini"
    weights = shared_data / "weights" / "tf_efficientnet_lite0.pth"
    arguments = ["--num-images", "64", "--device", "cpu", "--model", "timm/tf_efficientnet_lite0"]
    paths = ["--data", str(root), "--weights", str(weights), "--out", str(tmp_path)]
    assert main(["parity", *arguments, *paths]) == 0, capsys.readouterr()
    written = json.loads((tmp_path / "parity.json").read_text())
    assert [row["num_images"] for row in written["pixels"]] == [64] * 3 * len(run.LOADERS)
    assert all(row["max"] <= 1 and row["share_differing"] < 1e-4 for row in written["pixels"])
    assert all(row["gate"]["name"] == "exact" and row["passes"] for row in written["pixels"])
    assert [row["loader"] for row in written["models"]] == list(run.LOADERS)
    assert all(row["top1_agreement"] == 1 for row in written["models"])
