"""`dogs-accel predict` on a real run: the logits of its evaluation, and one line for a bad image."""

import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from dogs_accel.cli import main
from dogs_accel.eda.files import read_metadata
from dogs_accel.explain.cells import UnexplainableError, scale_to_unit, upsample
from dogs_accel.explain.drawings import blend
from dogs_accel.explain.explainers import find_explainer
from dogs_accel.inference import heatmaps
from dogs_accel.inference.export import describe_export
from dogs_accel.inference.heatmaps import HeatmapFolder
from dogs_accel.inference.predict import named_photos, predict_images
from dogs_accel.inference.trained import describe_trained, load_trained
from dogs_accel.results.folder import choose_run, read_runs_folder
from dogs_accel.runtime.files import FullDiskError
from pipelines import EVAL
from pipelines.decoding.pil import decode_rgb
from pipelines.torchloader import augment_images, resize_image

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tiny_results):
    """The tiny run, at a temperature as a longer one has it: its own one epoch tells none."""
    found = load_trained(choose_run(read_runs_folder(tiny_results)), torch.device("cpu"))
    return replace(found, temperature=2.5)


@pytest.fixture(scope="module")
def test_rows(tiny_results):
    """Paths of the test images in the order of test_logits.npz."""
    splits = read_metadata(tiny_results).splits.set_index("image_id")
    return splits.loc[choose_run(read_runs_folder(tiny_results)).predictions("test").ids, "image_path"].tolist()


def test_the_logits_are_those_of_the_evaluation(trained, test_rows):
    recorded = trained.run.predictions("test").logits
    np.testing.assert_allclose(trained.logits(test_rows).logits, recorded, rtol=0, atol=1e-6)
    # a photo alone and in another company
    np.testing.assert_allclose(trained.logits(test_rows[5:6]).logits, recorded[5:6], rtol=1e-4, atol=1e-5)


def test_the_probabilities_are_calibrated_and_in_their_order(trained, test_rows):
    recorded = torch.from_numpy(trained.run.predictions("test").logits).double()
    expected = (recorded / trained.temperature).softmax(dim=1)
    for row, answer in enumerate(predict_images(trained, test_rows, top=3)):
        assert answer.path == test_rows[row]
        labels = [trained.class_names.index(name) for name in answer.classes]
        assert labels == expected[row].argsort(descending=True)[:3].tolist()
        np.testing.assert_allclose(answer.probabilities, expected[row, labels], rtol=1e-3, atol=1e-5)


@pytest.mark.fault(
    "Machine and environment", "a program whose own tensors are float64 by default", "the same answers and heat maps"
)
def test_the_default_number_type_of_a_program_changes_nothing(trained, test_rows, tmp_path):
    before = predict_images(trained, test_rows[:2])
    torch.set_default_dtype(torch.float64)
    try:
        again = load_trained(trained.run, torch.device("cpu"))
        draw = HeatmapFolder(tmp_path, again.model, again.recipe).draw
        after = predict_images(replace(again, temperature=2.5), test_rows[:2], draw=draw)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert [answer.no_heatmap for answer in after] == [None, None]
    assert [answer.classes for answer in after] == [answer.classes for answer in before]
    for answer, expected in zip(after, before, strict=True):
        assert answer.probabilities == pytest.approx(expected.probabilities, abs=1e-6)


@pytest.mark.fault(
    "Scores and figures", "`predict` by a run without a temperature", "the softmax as it is, at no temperature"
)
def test_without_a_temperature_the_softmax_is_as_it_is(trained, test_rows):
    plain = replace(trained, temperature=None)
    expected = torch.from_numpy(trained.run.predictions("test").logits[0]).double().softmax(dim=0)
    [answer] = predict_images(plain, test_rows[:1], top=4)
    np.testing.assert_allclose(answer.probabilities, expected.sort(descending=True).values, rtol=1e-3, atol=1e-5)


def without_temperature(tiny_results, folder):
    """The tiny results, whose temperature an earlier version found at the lower bound of its fit."""
    results = Path(shutil.copytree(tiny_results, folder / "results"))
    path = results / "cnn" / "resnet18_full" / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["temperature"] = {"value": 1e-6, "low": None, "high": None, "fitted_on": "val"}
    path.write_text(json.dumps(metrics))
    return results


@pytest.mark.fault(
    "Scores and figures",
    "results of an earlier version with a temperature of 1e-6",
    "predict and export use none and say why they are not calibrated",
)
def test_what_is_not_calibrated_is_not_called_so(tiny_results, test_rows, tmp_path, capsys):
    results = without_temperature(tiny_results, tmp_path)
    reason = "the likelihood of the validation images has no optimum, so that they cannot say how sure to be"
    command = ["predict", test_rows[0], "--run", str(results), "--device", "cpu"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert f"; probabilities not calibrated: {reason}\n" in said
    assert "1.0000" not in said
    assert main([*command, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["temperature"], content["not_calibrated"]) == (None, reason)
    trained = load_trained(choose_run(read_runs_folder(results)), torch.device("cpu"))
    described = describe_export(trained, [], [])
    assert (described["temperature"], described["probabilities"]) == (None, "softmax(logits)")
    assert described["not_calibrated"] == reason
    assert "not_calibrated" not in describe_export(replace(trained, temperature=1.5), [], [])


def test_a_picture_of_any_format_has_the_answer_of_its_pixels(trained, test_rows, tmp_path):
    image = Image.open(test_rows[0]).convert("RGB")
    paths = [str(tmp_path / f"picture.{ending}") for ending in ("png", "bmp", "tiff", "webp", "jpg")]
    for path in paths:
        image.save(path, **({"lossless": True} if path.endswith("webp") else {}))
    logits = trained.logits(paths[:4]).logits
    np.testing.assert_allclose(logits, trained.logits(test_rows[:1]).logits.repeat(4, axis=0), rtol=1e-4, atol=1e-5)
    assert all(answer.problem is None for answer in predict_images(trained, paths))


def test_photos_are_answered_batch_by_batch_as_the_loader_makes_them(trained, test_rows, tmp_path, monkeypatch):
    small = replace(trained, batch_size=3)
    bad = str(tmp_path / "bad.jpg")
    Path(bad).write_bytes(b"no picture")
    paths = [test_rows[0], bad, bad, *test_rows[1:], bad]
    read, fed = [], []
    monkeypatch.setattr("dogs_accel.inference.predict.decode_rgb", lambda path: read.append(path) or decode_rgb(path))
    hook = trained.model.register_forward_pre_hook(lambda _, inputs: fed.append((len(read), len(inputs[0]))))
    try:
        answers = predict_images(small, paths, top=4)
    finally:
        hook.remove()
    assert sorted(read) == sorted(paths)
    assert [num for _, num in fed] == [3] * 8
    for number, (num_read, _) in enumerate(fed):
        assert num_read <= 3 * number + 3 + 2 + 3 + 1  # answered, this batch, bad ones, and what is read ahead
    expected = (torch.from_numpy(small.logits(test_rows).logits).double() / trained.temperature).softmax(dim=1)
    assert [answer.path for answer in answers] == paths
    assert [answer.problem for answer in answers] == [None, *["not an image"] * 2, *[None] * 23, "not an image"]
    said = [answer.probabilities for answer in answers if answer.problem is None]
    assert said == [tuple(row) for row in expected.sort(dim=1, descending=True).values.tolist()]


def test_the_command_prints_a_table(trained, tiny_results, test_rows, capsys):
    assert main(["predict", *test_rows[:2], "--run", str(tiny_results), "--device", "cpu", "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "not dogs" in lines[0]
    assert lines[1].startswith("resnet18_full: ResNet-18, ")
    own = replace(trained, temperature=trained.run.temperature)
    assert lines[1] == describe_trained(own)
    assert describe_trained(trained).endswith("; temperature 2.5")
    first, _ = predict_images(own, test_rows[:2])
    assert lines[2] == test_rows[0]
    assert lines[3].split() == ["1", *first.classes[0].split(), f"{first.probabilities[0]:.4f}"]
    assert len(lines) == 2 + 2 * 3


def test_views_are_averaged_as_the_benchmark_does(trained, tiny_results, test_rows, capsys):
    recorded = torch.from_numpy(trained.run.predictions("test", tta=True).logits).double().softmax(dim=1)
    plain = replace(trained, temperature=None)
    for row, answer in enumerate(predict_images(plain, test_rows, top=4, tta="flip")):
        labels = [trained.class_names.index(name) for name in answer.classes]
        np.testing.assert_allclose(answer.probabilities, recorded[row, labels], rtol=1e-3, atol=1e-5)
    command = ["predict", *test_rows[:2], "--run", str(tiny_results), "--device", "cpu", "--tta", "five-crop"]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith("; five-crop, 5 views")
    assert main([*command, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["tta"] == "five-crop"
    assert f"{content['images'][0]['predictions'][0]['probability']:.4f}" in lines[3]
    with pytest.raises(SystemExit) as stop:
        main([*command[:-1], "flop"])
    assert stop.value.code == 2
    assert "error: tta: got 'flop', expected none, flip, " in capsys.readouterr().err


def test_the_mean_of_views_has_each_at_its_temperature_and_draws_do_not_depend_on_company(trained, test_rows):
    view_recipes = [view.recipe for view in trained.views("five-crop")]
    with torch.inference_mode():
        expected = [
            (trained.model(augment_images([resize_image(decode_rgb(test_rows[0]), recipe)], recipe, seed=0, epoch=0,
                                          index=np.arange(1))) / 2.5).softmax(dim=1)[0]
            for recipe in view_recipes
        ]  # fmt: skip
    [answer] = predict_images(trained, test_rows[:1], top=4, tta="five-crop")
    mean = torch.stack(expected).mean(dim=0).sort(descending=True).values
    np.testing.assert_allclose(answer.probabilities, mean, rtol=1e-3, atol=1e-5)
    assert {view.recipe.name for view in trained.views("4")[1:]} == {"resnet-train"}
    first, *_ = predict_images(trained, test_rows[:5], tta="4")
    _, last = predict_images(trained, [test_rows[3], test_rows[0]], tta="4")
    np.testing.assert_allclose(first.probabilities, last.probabilities, rtol=1e-3)
    [alone] = predict_images(trained, test_rows[:1])
    assert np.abs(np.array(alone.probabilities) - first.probabilities).max() > 1e-4


@pytest.mark.fault(
    "Photos", "a bad photo among those for `predict`", "one line for it; the others are answered; exit code 1"
)
def test_the_command_prints_json_and_a_bad_image_is_one_entry(tiny_results, test_rows, tmp_path, capsys):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    arguments = [test_rows[0], str(bad), str(tmp_path / "gone.jpg"), test_rows[1]]
    with pytest.raises(SystemExit) as stop:
        main(["predict", *arguments, "--run", str(tiny_results), "--device", "cpu", "--json"])
    assert stop.value.code == 1
    printed = capsys.readouterr()
    content = json.loads(printed.out)
    assert [image["path"] for image in content["images"]] == arguments
    assert [image.get("error") for image in content["images"]] == [
        None, "not an image", "No such file or directory", None,
    ]  # fmt: skip
    assert [set(each) for each in content["images"][3]["predictions"]] == [{"class", "probability"}] * 4
    shares = [each["probability"] for each in content["images"][3]["predictions"]]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1)  # of 4 classes the 5 likeliest are all
    assert printed.err == "dogs-accel predict: FAILED: 2 of 4 images cannot be read\n"


def test_heat_maps_lie_beside_the_crop_that_was_fed(trained, tiny_results, test_rows, tmp_path, capsys):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    again = tmp_path / "other" / Path(test_rows[0]).name
    again.parent.mkdir()
    shutil.copy(test_rows[1], again)
    maps = tmp_path / "new" / "maps"
    arguments = [test_rows[0], str(bad), str(again)]
    with pytest.raises(SystemExit):
        main(["predict", *arguments, "--run", str(tiny_results), "--device", "cpu", "--json", "--heatmap", str(maps)])
    images = json.loads(capsys.readouterr().out)["images"]
    stem = Path(test_rows[0]).stem
    expected = [str(maps / f"{stem}_heatmap.png"), None, str(maps / f"{stem}_heatmap_2.png")]
    assert [image.get("heatmap") for image in images] == expected
    assert len(list(maps.iterdir())) == 2

    explainer = find_explainer(trained.model, 32)
    with trained.loader(test_rows[:2]) as loader:
        [(fed, _, _)] = list(loader)
    explainer = explainer.placed_on(fed)
    classes = torch.from_numpy(trained.logits(test_rows[:2]).predicted)
    heat = scale_to_unit(upsample(explainer.maps(fed, classes)["gradcam"], explainer.places, 32)).numpy()
    for row, path in enumerate([expected[0], expected[2]]):
        strip = np.asarray(Image.open(path))
        assert strip.shape == (224, 2 * 224 + 4, 3)  # 32 px drawn 7 times as large, and a gap
        pixels = strip[::7, :224:7]
        decoded = Image.open(test_rows[row]).convert("RGB")
        np.testing.assert_array_equal(pixels, squashed_centre(decoded, trained.recipe))
        np.testing.assert_array_equal(strip[::7, 228::7], blend(pixels, heat[row]))


def squashed_centre(image, recipe):
    """What Pillow makes of the recipe of evaluation."""
    height, width = recipe.resized(image.height, image.width)
    top, left = (height - recipe.crop) // 2, (width - recipe.crop) // 2
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized.crop((left, top, left + recipe.crop, top + recipe.crop)))


@pytest.mark.fault(
    "Folders and names",
    "photos of one file name in several folders, for `predict --heatmap`",
    "a heat map each; none replaces another photo's",
)
def test_heat_maps_of_other_photos_stay(tiny_results, test_rows, tmp_path, capsys):
    maps, stem = tmp_path / "maps", Path(test_rows[0]).stem
    other = tmp_path / "other" / Path(test_rows[0]).name
    other.parent.mkdir()
    shutil.copy(test_rows[1], other)
    drawn = []
    for photo in (test_rows[0], str(other), test_rows[0], str(other)):
        arguments = [photo, "--run", str(tiny_results), "--device", "cpu", "--json", "--heatmap", str(maps)]
        assert main(["predict", *arguments]) == 0
        [image] = json.loads(capsys.readouterr().out)["images"]
        drawn.append((Path(image["heatmap"]).name, Path(image["heatmap"]).read_bytes()))
    first, second, *again = drawn
    assert [first[0], second[0]] == [f"{stem}_heatmap.png", f"{stem}_heatmap_2.png"]
    assert first[1] != second[1]
    assert again == [first, second]
    assert (maps / first[0]).read_bytes() == first[1]


def test_the_table_names_the_heat_map(tiny_results, test_rows, tmp_path, capsys):
    arguments = ["--run", str(tiny_results), "--device", "cpu", "--heatmap", str(tmp_path)]
    assert main(["predict", test_rows[0], *arguments]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"  heat map: {tmp_path / (Path(test_rows[0]).stem + '_heatmap.png')}"


@pytest.mark.fault(
    "Training and models",
    "`predict --heatmap` by a model without heat maps",
    "every photo is answered, with the reason; exit code 1",
)
@pytest.mark.fault(
    "Disk", "the disk is full while `predict` draws heat maps", "every photo is answered, with the reason; exit code 1"
)
@pytest.mark.parametrize(
    ("what", "error", "reason"),
    [
        ("find_explainer", UnexplainableError("model: Plain has no map"), "model: Plain has no map"),
        ("save_picture", FullDiskError("a.png cannot be written: no space"), "a.png cannot be written: no space"),
    ],
)
def test_without_heat_maps_there_are_answers(
    tiny_results, test_rows, tmp_path, monkeypatch, capsys, what, error, reason
):
    def refuse(*_):
        raise error

    monkeypatch.setattr(heatmaps, what, refuse)
    asked = ["predict", *test_rows[:2], "--run", str(tiny_results), "--device", "cpu", "--heatmap", str(tmp_path)]
    for form in ([], ["--json"]):
        with pytest.raises(SystemExit) as stop:
            main([*asked, *form])
        assert stop.value.code == 1
        printed = capsys.readouterr()
        assert printed.err == f"dogs-accel predict: FAILED: 2 heat maps cannot be drawn: {reason}\n"
        if form:
            answers = json.loads(printed.out)["images"]
            assert [(len(answer["predictions"]), answer["heatmap_error"]) for answer in answers] == [(4, reason)] * 2
        else:
            assert [line.split()[0] for line in printed.out.splitlines()[3:7]] == ["1", "2", "3", "4"]
            assert printed.out.splitlines()[-1] == f"  no heat map: {reason}"


def test_only_bad_images_are_a_line_each(tiny_results, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    arguments = [str(tmp_path), str(tmp_path / "pipe")]
    with pytest.raises(SystemExit) as stop:
        main(["predict", *arguments, "--run", str(tiny_results), "--device", "cpu"])
    assert stop.value.code == 1
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert lines[0].startswith(f"{tmp_path}: a folder without a photo, looked for .jpg, ")
    assert lines[1] == f"{tmp_path / 'pipe'}: not a regular file"


@pytest.mark.fault("Command line", "a folder given to `predict`", "its photos are answered")
def test_a_folder_stands_for_the_photos_below_it(test_rows, tmp_path):
    for name in ("b/2.JPG", "b/1.png", "a.jpg", "notes.txt", ".hidden.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    folder = str(tmp_path)
    assert named_photos([test_rows[0], folder, f"{folder}/b/2.JPG"]) == [
        test_rows[0], f"{folder}/a.jpg", f"{folder}/b/1.png", f"{folder}/b/2.JPG", f"{folder}/b/2.JPG",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "nothing"], "model: got 'nothing', expected one of resnet18_full"),
        (["--device", "gpu"], "device: got 'gpu', expected cpu, cuda or cuda:N"),
    ],
)
def test_what_is_wrong_is_one_line(tiny_results, test_rows, arguments, words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["predict", test_rows[0], "--run", str(tiny_results), *arguments])
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"dogs-accel predict: error: {words}\n"


@pytest.mark.fault("Archives and checkpoints", "a run's checkpoint that is cut off", "one line that names it")
def test_a_damaged_checkpoint_is_one_line(tiny_results, test_rows, tmp_path, capsys):
    results = shutil.copytree(tiny_results, tmp_path / "results")
    path = results / "cnn" / "resnet18_full" / "best.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(SystemExit) as stop:
        main(["predict", test_rows[0], "--run", str(results), "--device", "cpu"])
    assert stop.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"checkpoint: {path} cannot be read" in line


@pytest.mark.fault(
    "Folders and names",
    "classes called NA or accuracy, or with quotes and commas, in a finished run",
    "`predict` answers with those names",
)
def test_the_classes_keep_their_names_whatever_they_are(tiny_results, tmp_path):
    results = shutil.copytree(tiny_results, tmp_path / "results")
    run = choose_run(read_runs_folder(results))
    report = run.folder / "classification_report.csv"
    table = pd.read_csv(report, index_col=0)
    table.index = ["NA", "accuracy", "1", 'a "b", c', *table.index[4:]]
    table.to_csv(report)
    assert run.class_names == ["NA", "accuracy", "1", 'a "b", c']


class OneMap:
    """An explainer whose maps are the same everywhere."""

    def placed_on(self, images):
        return self


@pytest.mark.fault("Disk", "two `predict --heatmap` into one folder, of photos with one name", "each has its picture")
def test_two_at_work_in_one_folder_do_not_take_each_others_names(tmp_path, monkeypatch):
    save = heatmaps.save_picture

    def save_late(pixels, place, texts):
        time.sleep(0.1)  # in which the other finds the name free
        return save(pixels, place, texts)

    monkeypatch.setattr(heatmaps, "save_picture", save_late)
    monkeypatch.setattr(heatmaps, "find_explainer", lambda model, size_px: model)
    monkeypatch.setattr(heatmaps, "heat_maps", lambda explainer, images, classes: {"gradcam": images[:, 0]})

    def draw(photo):
        folder = heatmaps.HeatmapFolder(tmp_path, OneMap(), EVAL.at(32))
        return folder.draw([photo], torch.rand(1, 3, 32, 32), torch.zeros(1, dtype=torch.int64))

    with ThreadPoolExecutor(2) as pool:  # threads lock each other out as processes do
        places = [place for places in pool.map(draw, ["a/cat.jpg", "b/cat.jpg"]) for place in places]
    assert {path.name for path in places} == {"cat_heatmap.png", "cat_heatmap_2.png"}
    assert {path.name for path in tmp_path.iterdir()} == {"cat_heatmap.png", "cat_heatmap_2.png"}
