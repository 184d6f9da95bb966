"""`dogs-accel explain`: its files, against the run's model, and how it ends."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from dogs_accel.cli import main
from dogs_accel.eda.files import read_metadata
from dogs_accel.explain.drawings import crop_pixels
from dogs_accel.explain.inside.units import show_units
from dogs_accel.inference.inside import InsideSettings, look_inside
from dogs_accel.inference.trained import load_trained
from dogs_accel.results.folder import choose_run, read_runs_folder
from dogs_accel.results.layout import logits_file

ODD = "lönely [dog] #1 & co.jpg"


@pytest.fixture(scope="module")
def photos(dogs_root, tmp_path_factory):
    """Two photos in folders of their own: one with an odd name, one that is called the same as another's stem."""
    folder = tmp_path_factory.mktemp("photos")
    found = sorted((dogs_root / "Images").rglob("*.jpg"))[:2]
    shutil.copy(found[0], folder / ODD)
    (folder / "b").mkdir()
    shutil.copy(found[1], folder / "b" / f"{ODD[:-4]}.png")  # PIL looks at the content
    return [folder / ODD, folder / "b" / f"{ODD[:-4]}.png"]


def explain(tiny_results, photos, out, *more):
    return main([
        "explain", *map(str, photos), "--run", str(tiny_results), "--out", str(out), "--num-images", "16",
        "--device", "cpu", *more,
    ])  # fmt: skip


def absent_logits(run, split):
    raise ValueError(f"{run.folder / logits_file(split)}: not found, expected the logits of a run")


@pytest.fixture(scope="module")
def trained(tiny_results):
    return load_trained(choose_run(read_runs_folder(tiny_results), None), torch.device("cpu"))


def one_unit(model, inspected, images, *, seed):
    return show_units(model, inspected, images, seed=seed, num=1)


def test_the_files_say_what_the_model_does(tiny_results, photos, tmp_path, undrawn, capsys):
    assert explain(tiny_results, photos, tmp_path / "out") == 0
    said = capsys.readouterr().out
    content = json.loads((tmp_path / "out" / "explain.json").read_text())
    assert [image["path"] for image in content["images"]] == list(map(str, photos))
    stages = [stage["name"] for stage in json.loads((tmp_path / "out" / "feature_maps.json").read_text())["stages"]]
    assert stages == ["conv1", "layer1", "layer2", "layer3"]  # layer4 is one cell at 32 px
    assert all(f"\n{stage}: " in said for stage in stages)
    files = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
    names = [f"{at:02}_{stage}.png" for at, stage in enumerate(stages, start=1)]
    assert files == {
        "explain.json", "feature_maps.json", "feature_maps.npz", "channels.csv", "first_layer.png",
        *(f"maps/{name}" for name in names), *(f"channels/{name}" for name in names),
        f"units/{ODD[:-4]}.png", f"units/{ODD[:-4]}_2.png",
    }  # fmt: skip
    # What excites a channel most, by hand over the sample.
    run = choose_run(read_runs_folder(tiny_results), None)
    trained = load_trained(run, torch.device("cpu"))
    table = pd.read_csv(tmp_path / "out" / "channels.csv")
    top = table[(table["stage"] == "layer2") & (table["rank"] == 1)].iloc[0]
    seen = []
    trained.model.layer2.register_forward_hook(lambda _, __, out: seen.append(out[0]))
    with trained.loader([top["image_path"]]) as loader:
        [batch] = loader
    with torch.no_grad():
        trained.model(batch.images.float())
    own = seen[0][int(top["channel"])]
    assert own.max().item() == pytest.approx(top["value"], rel=1e-5)
    assert divmod(int(own.argmax()), own.shape[1]) == (top["row"], top["column"])
    with np.load(tmp_path / "out" / "feature_maps.npz") as arrays, trained.loader(photos) as loader:
        [batch] = loader
        np.testing.assert_array_equal(arrays["crops"], crop_pixels(batch.images, trained.recipe))
    units = content["units"]
    assert units["method"] == "guided backpropagation"
    assert [len(image["units"]) for image in units["images"]] == [10, 10]
    assert -1 <= units["check"]["similarity_with_shuffled_weights"] <= 1
    assert f"check against shuffled weights: {units['check']['verdict']}" in said


def test_a_bad_photo_costs_itself_alone(tiny_results, photos, tmp_path, undrawn, capsys):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no photo")
    with pytest.raises(SystemExit) as stop:
        explain(tiny_results, [bad, photos[0]], tmp_path / "out")
    assert stop.value.code == 1
    assert f"{bad}: " in capsys.readouterr().err
    assert len(list((tmp_path / "out" / "units").iterdir())) == 1


@pytest.mark.parametrize("lost", ["images", "logits"])
def test_without_test_images_the_photos_are_shown_alone(tiny_results, trained, photos, tmp_path, monkeypatch, lost):
    if lost == "logits":
        monkeypatch.setattr(type(trained.run), "predictions", absent_logits)
    else:
        table = read_metadata(tiny_results)
        gone = table.splits.assign(image_path="/gone/" + table.splits["image_id"])
        monkeypatch.setattr("dogs_accel.inference.inside.read_metadata", lambda _: SimpleNamespace(splits=gone))
    monkeypatch.setattr("dogs_accel.inference.inside.show_units", one_unit)
    monkeypatch.setattr("dogs_accel.explain.inside.units.shuffled_copy", lambda model, *_: model)
    monkeypatch.setattr("dogs_accel.inference.inside.filters_figure", lambda *_: None)
    monkeypatch.setattr("dogs_accel.inference.inside.save_figure", lambda _, path: path)
    *_, done = look_inside(trained, tiny_results, [str(photos[0])], tmp_path, InsideSettings())
    [why] = done.failures
    assert ("test_logits.npz: not found" if lost == "logits" else "test images of resnet18_full is where it was") in why
    assert why.endswith("so separating channels and what excites channels are left out")
    names = {path.relative_to(tmp_path).as_posix() for path in done.written}
    assert {"first_layer.png", "maps/01_conv1.png", f"units/{ODD[:-4]}.png"} <= names
    assert not {name for name in names if name.startswith("channels")}
    content = json.loads((tmp_path / "feature_maps.json").read_text())
    assert content["sample"] is content["classes"] is None
    # The most active ones by hand: the highest means of layer1 over the photo.
    seen = []
    handle = trained.model.layer1.register_forward_hook(lambda _, __, out: seen.append(out[0].mean(dim=(1, 2))))
    with trained.loader(photos[:1]) as loader, torch.no_grad():
        trained.model(next(iter(loader)).images.float())
    handle.remove()
    [active] = next(stage for stage in content["stages"] if stage["name"] == "layer1")["active"]
    highest = seen[0].topk(10)
    assert [each["channel"] for each in active] == highest.indices.tolist()
    z = (highest.values - seen[0].mean()) / seen[0].std(unbiased=False)
    np.testing.assert_allclose([each["score"] for each in active], z, rtol=1e-4)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--classes", "n02000000-fenmar", "nothing"], "classes: got "),
        (["--model", "resnet19_full"], "did you mean"),
        (["--num-images", "0"], "--num-images"),
    ],
)
def test_what_cannot_be_is_one_line_before_the_work(tiny_results, photos, tmp_path, capsys, more, said):
    with pytest.raises(SystemExit) as stop:
        explain(tiny_results, photos[:1], tmp_path / "out", *more)
    assert stop.value.code == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dogs-accel explain: error")]
    assert said in line
    assert not list((tmp_path / "out").rglob("*.png"))


def test_too_many_photos_are_refused(tiny_results, tmp_path, capsys):
    for number in range(25):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    with pytest.raises(SystemExit) as stop:
        explain(tiny_results, [tmp_path], tmp_path / "out")
    assert stop.value.code == 2
    assert "images: got 25, expected at most 24" in capsys.readouterr().err
