"""Exported files are loaded as a stranger would, and one that differs is not kept."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import nn

from dogs_accel.cli import main
from dogs_accel.eda.files import read_metadata
from dogs_accel.evaluation.galleries import fed_image
from dogs_accel.inference import export
from dogs_accel.inference.export import ExportMismatchError, check_same, export_run, real_images
from dogs_accel.inference.preprocessing import describe_preprocessing, preprocessing_steps
from dogs_accel.inference.trained import load_trained
from dogs_accel.results.folder import choose_run, read_runs_folder
from dogs_accel.runtime.files import only_process_in
from pipelines import EVAL, Recipe


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 4)

    def forward(self, images):
        return self.head(images.mean(dim=(2, 3)))


NO_IMAGES = torch.empty(0, 3, 8, 8)


def test_a_check_covers_random_inputs_and_real_images_in_both_batch_sizes():
    model, sizes = Tiny(), []

    def exported(images):
        sizes.append(len(images))
        return model(images)

    check = check_same("model.pt2", "a runtime", model, exported, torch.randn(4, 3, 8, 8), 8)
    assert sizes == [1, 3, 1, 1, 1, 1, 3, 1]
    assert (check.num_random, check.num_real, check.largest_difference) == (4, 4, 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda logits: logits * 1.001, "differ from the model's by"),
        (lambda logits: logits * float("nan"), "differ from the model's by nan"),
        (lambda logits: logits[:1], "gives logits of shape (1, 4), the model (3, 4)"),
        (lambda logits: logits[:, [1, 0, 2, 3]], "differ from the model's by"),
    ],
)
def test_a_difference_is_refused(change, words):
    torch.manual_seed(0)
    model = Tiny()
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    with pytest.raises(ExportMismatchError) as stop:
        check_same("model.onnx", "onnxruntime", model, lambda images: change(model(images)), NO_IMAGES, 8)
    assert words in str(stop.value)


def test_the_steps_say_what_the_recipe_does():
    steps = preprocessing_steps(EVAL)
    assert steps[1].startswith("squash to (256, 256) (height, width) px, not keeping the aspect, bilinear")
    assert steps[2] == "take the central 224 x 224 px"
    other = replace(EVAL, resize=None, padding=4, fill=(255, 0, 9), crop_place="top_left")
    assert preprocessing_steps(other)[1:4] == [
        "leave the photo at its size",
        "add 4 px of the colour [255, 0, 9] on each side",
        "take the 224 x 224 px in the top left corner; a side that is shorter lies in the middle, with the colour "
        "[255, 0, 9] around it",
    ]
    assert preprocessing_steps(replace(EVAL, resize=256))[1].startswith("resize the shorter side to 256 px, bilinear")


def test_what_is_described_makes_the_recipe_anew():
    for recipe in (EVAL, replace(EVAL, resize=None, padding=4, fill=(255, 0, 9), crop_place="bottom_right")):
        described = describe_preprocessing(recipe)
        named = {field.name for field in fields(Recipe)} & described.keys()
        again = Recipe(name=recipe.name, crop=described.get("center_crop", recipe.crop),
                       **{name: described[name] for name in named - {"crop"}})  # fmt: skip
        assert again == recipe


@pytest.fixture(scope="module")
def exported(tiny_results, tmp_path_factory):
    """The files of the tiny run, written once, and what the command printed."""
    out = tmp_path_factory.mktemp("exported")
    trained = load_trained(choose_run(read_runs_folder(tiny_results)), torch.device("cpu"))
    splits = read_metadata(tiny_results).splits
    paths = splits.loc[splits["split"] == "test", "image_path"].tolist()
    return out, export_run(trained, out, real_images(trained, paths)), trained, paths


@pytest.mark.slow
def test_a_stranger_gets_the_recorded_logits_with_the_files_alone(exported):
    """Preprocess with PIL as preprocessing.json says, run both files, and compare with test_logits.npz."""
    import onnxruntime

    out, result, trained, paths = exported
    assert [path.name for path in result.written] == ["model.pt2", "model.onnx", "preprocessing.json"]
    assert result.notes == []
    assert all(check.num_real == 6 and check.largest_difference < 1e-5 for check in result.checks)
    described = json.loads((out / "preprocessing.json").read_text())
    mean, std = (np.float32(described["preprocessing"][name]) for name in ("mean", "std"))
    pixels = np.stack([fed_image(path, EVAL.at(described["preprocessing"]["center_crop"])) for path in paths])
    images = ((pixels / np.float32(255) - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    recorded = trained.run.predictions("test").logits
    archive = torch.export.load(out / "model.pt2").module()
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    for num in (1, 3, len(images)):
        with torch.inference_mode():
            np.testing.assert_allclose(archive(torch.from_numpy(images[:num])), recorded[:num], rtol=1e-4, atol=1e-5)
        [logits] = session.run([described["output"]["name"]], {described["input"]["name"]: images[:num]})
        np.testing.assert_allclose(logits, recorded[:num], rtol=1e-4, atol=1e-5)
    assert described["class_names"] == trained.class_names
    assert described["temperature"] == trained.temperature
    assert described["input"]["shape"] == ["batch", 3, 32, 32]
    assert torch.__version__.startswith(described["versions"]["torch"])  # without the name of its build
    assert [check["file"] for check in described["checks"]] == ["model.pt2", "model.onnx"]


@pytest.mark.fault(
    "Archives and checkpoints",
    "an exported model that answers otherwise than the original",
    "it is not left behind, and the command fails",
)
@pytest.mark.slow
def test_a_file_that_fails_its_check_is_not_left(exported, tiny_results, tmp_path, monkeypatch, capsys):
    """Also not the one that an earlier call left in its place."""
    (tmp_path / "model.onnx").write_text("of an earlier call")
    forward = export._onnx_forward
    monkeypatch.setattr(export, "_onnx_forward", lambda path: lambda images: forward(path)(images) + 1)
    with pytest.raises(SystemExit) as stop:
        main(["export", "--run", str(tiny_results), "--out", str(tmp_path)])
    assert stop.value.code == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("dogs-accel export: FAILED: model.onnx: onnxruntime gives logits that differ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt2"]


@pytest.mark.slow
def test_what_is_not_installed_is_said(exported, tmp_path, monkeypatch):
    _, _, trained, _ = exported
    monkeypatch.setattr(export, "missing_packages", lambda: ["onnx"])
    result = export_run(trained, tmp_path, torch.empty(0, 3, 32, 32))
    assert [path.name for path in result.written] == ["model.pt2", "preprocessing.json"]
    assert result.notes == [
        "checked on random inputs only: no test image is where the metadata say",
        "model.onnx is left out: onnx not installed (pip install 'dogs-accel[export]')",
    ]
    assert json.loads((tmp_path / "preprocessing.json").read_text())["files"] == ["model.pt2"]


@pytest.mark.fault("Disk", "two exports into one folder at a time", "the second is one line, nothing is mixed")
def test_two_exports_do_not_mix_in_one_folder(tiny_results, tmp_path, capsys):
    (tmp_path / "model.pt2").write_text("earlier")
    with only_process_in(tmp_path), pytest.raises(SystemExit) as stop:
        main(["export", "--run", str(tiny_results), "--out", str(tmp_path)])
    assert stop.value.code == 2
    said = f"dogs-accel export: error: out: another process works in {tmp_path}, expected none\n"
    assert capsys.readouterr().err == said
    assert [path.read_text() for path in tmp_path.iterdir()] == ["earlier"]
