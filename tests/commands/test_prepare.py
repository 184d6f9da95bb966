"""`dogs-accel prepare`: what it says, and that it goes on, refuses and replaces as it says."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dogs_accel.cli import main
from dogs_accel.datasets import open_dataset
from pipelines import EVAL
from pipelines.decoding.pil import open_rgb
from pipelines.recipe import RECIPES
from pipelines.store.reading import open_store
from pipelines.torchloader import resize_image


def prepare(capsys, root, *arguments):
    assert main(["prepare", "--data", str(root), *map(str, arguments)]) == 0
    return capsys.readouterr().out.splitlines()


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(["prepare", *map(str, arguments)])
    assert stop.value.code == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert line.startswith("dogs-accel prepare: error: ")
    return line


@pytest.fixture
def root(dogs_root, tmp_path):
    return shutil.copytree(dogs_root, tmp_path / "dogs")


def test_it_stores_the_whole_dataset_at_the_published_size(dogs_root, tmp_path, capsys):
    store = tmp_path / "a store"
    notice, layout, plan, built, bad, then = prepare(capsys, dogs_root, "--store", store)
    assert [notice, layout] == open_dataset(dogs_root).facts.lines()
    assert re.fullmatch(rf"store: 72 images of 256 x 256 px, 14.2 MB in {store}, [\d.,]+ [GM]B free", plan)
    assert re.fullmatch(r"built in [\d.]+ s", built)
    assert bad == "bad files: 0 of 72"
    assert (
        then == f'next: --loader cached --store \'{store}\', or make_loader(..., backend="cached", store_dir="{store}")'
    )
    data = open_dataset(dogs_root)
    test = [data.paths[i] for i in data.split("test")]
    opened = open_store(store, test, EVAL)
    assert opened.images.shape == (72, 256, 256, 3)
    expected = Image.open(test[3]).convert("RGB").resize((256, 256), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(opened.images[opened.rows[3]], expected)


def test_again_it_says_that_nothing_is_to_do(dogs_root, tmp_path, capsys):
    first = prepare(capsys, dogs_root, "--store", tmp_path)
    inode = (tmp_path / "pixels.npy").stat().st_ino
    again = prepare(capsys, dogs_root, "--store", tmp_path)
    assert again == [*first[:2], f"store: 72 images of 256 x 256 px in {tmp_path}, complete and current", *first[-2:]]
    assert (tmp_path / "pixels.npy").stat().st_ino == inode


def test_an_image_size_scales_the_store_and_the_default_folder_is_in_the_cache(
    dogs_root, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    *_, plan, _, _, then = prepare(capsys, dogs_root, "--image-size", 64, "--num-threads", 1)
    [store] = (tmp_path / "dogs_accel" / "stores").iterdir()
    assert plan.startswith(f"store: 72 images of 73 x 73 px, 1.2 MB in {store}, ")
    assert f"--store {store}, " in then
    assert len(open_store(store, open_dataset(dogs_root).paths, EVAL.at(64)).rows) == 72


def test_a_recipe_has_its_own_store(root, tmp_path, capsys):
    data = open_dataset(root)
    for name, sizes in (("imagenet-eval", "with a shorter side of 37 px"), ("imagenet-train", "as they are")):
        store, recipe = tmp_path / name, RECIPES[name].at(32)
        *_, plan, _, bad, then = prepare(capsys, root, "--recipe", name, "--image-size", 32, "--store", store)
        assert plan.startswith(f"store: 72 images {sizes}, ")
        assert bad == "bad files: 0 of 72"
        assert then == f'next: make_loader(..., backend="cached", store_dir="{store}")'
        opened = open_store(store, data.paths[:2], recipe)
        np.testing.assert_array_equal(opened.image(1), resize_image(open_rgb(data.paths[1]), recipe))
    *_, then = prepare(capsys, root, "--recipe", "vit-train", "--image-size", 32, "--store", tmp_path / "vit")
    assert then.startswith("next: --loader cached --store ")
    *_, plan, _, _, _ = prepare(capsys, root, "--recipe", "cifar-train", "--store", tmp_path / "cifar")
    assert plan.startswith("store: 72 images of 32 x 32 px, ")


def test_a_store_of_less_is_said_to_be_of_less(root, tmp_path, capsys):
    store, flags = tmp_path / "less", ["--recipe", "imagenet-train", "--store-max-side"]
    *_, plan, _, _, then = prepare(capsys, root, *flags, 40, "--store", store)
    assert plan.startswith("store: 72 images with at most 40 px on the longer side, ")
    assert then == f'next: make_loader(..., backend="cached", store_dir="{store}", store_max_side=40)'
    index = json.loads((store / "index.json").read_text())
    assert index["max_side"] == 40
    assert {max(file["height"], file["width"]) for file in index["files"]} == {40}
    line = refused(capsys, "--data", root, "--store-max-side", 40, "--store", tmp_path / "other")
    assert "store_max_side: got 40 for the recipe eval, whose resize is (256, 256), expected an integer >= 1" in line
    assert not (tmp_path / "other").exists()


@pytest.mark.fault("Command line", "the store of one recipe, for another", "it is refused by name")
def test_a_store_of_another_kind_is_refused(root, tmp_path, capsys):
    store = tmp_path / "store"
    prepare(capsys, root, "--recipe", "imagenet-eval", "--image-size", 32, "--store", store)
    line = refused(capsys, "--data", root, "--image-size", 32, "--store", store)
    assert "made for resize 37, the recipe eval has (37, 37); give each its own folder" in line
    line = refused(capsys, "--data", root, "--recipe", "imagenet-evil")
    assert "recipe: got 'imagenet-evil', expected one of eval, resnet-train, " in line
    assert line.endswith("(did you mean 'imagenet-eval'?)")


def test_bad_files_are_shown_and_cost_nothing_else(root, tmp_path, capsys):
    paths = open_dataset(root).paths
    for path in paths[:12]:
        Path(path).write_bytes(b"")
    out = prepare(capsys, root, "--store", tmp_path / "store")
    at = out.index("bad files: 12 of 72")
    assert out[at + 1] == f"  {paths[0]}: an empty file"
    assert len(out[at:]) == 1 + 10 + 1 + 1
    assert out[-2] == f"  and 2 more in {tmp_path / 'store' / 'index.json'}"
    files = json.loads((tmp_path / "store" / "index.json").read_text())["files"]
    assert sum(file["problem"] is not None for file in files) == 12


@pytest.mark.fault(
    "Disk",
    "a store whose photos have changed",
    "refused by name until --rebuild; one in the user's cache is built anew",
)
def test_a_stale_store_is_refused_until_it_is_rebuilt(root, tmp_path, capsys):
    store = tmp_path / "store"
    prepare(capsys, root, "--store", store, "--image-size", 32)
    path = Path(open_dataset(root).paths[5])
    Image.new("RGB", (50, 60), "red").save(path)
    line = refused(capsys, "--data", root, "--store", store, "--image-size", 32)
    assert f"store {store}: 1 of 72 files changed since it was built, first: {path} (size " in line
    assert "--rebuild" in line
    out = prepare(capsys, root, "--store", store, "--image-size", 32, "--rebuild")
    assert out[2].startswith(f"store: 72 images of 37 x 37 px, 295.7 kB in {store}, ")
    opened = open_store(store, [path], EVAL.at(32))
    expected = Image.open(path).resize((37, 37), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(opened.images[opened.rows[0]], expected)


def test_what_is_wrong_is_one_line(root, tmp_path, capsys, monkeypatch):
    assert "no such folder" in refused(capsys, "--data", tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in refused(capsys, "--data", root, "--store", tmp_path / "file")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=1_000_000))
    line = refused(capsys, "--data", root, "--store", tmp_path / "store")
    assert f"14.2 MB in {tmp_path / 'store'}, 1.0 MB free: too little" in line


@pytest.mark.fault(
    "Signals and processes", "Ctrl-C in `prepare`", "one line; the same command goes on where it stopped"
)
def test_ctrl_c_says_that_the_same_command_goes_on(shared_data, tmp_path, capsys):
    root, store = shared_data / "stanford-dogs-crops", tmp_path / "store"
    process = subprocess.Popen(
        [sys.executable, "-m", "dogs_accel", "prepare", "--data", root, "--store", store, "--num-threads", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
        # What runs in the background of a shell may have been told to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    end = time.monotonic() + 60
    while not (store / "journal.jsonl").exists() or (store / "journal.jsonl").read_bytes().count(b"\n") < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "stopped; the same command goes on from here"
    assert "Traceback" not in err
    _, plan = out.splitlines()
    assert plan.startswith("store: 5,128 images of 256 x 256 px, 1.0 GB in ")
    num_done = (store / "journal.jsonl").read_bytes().count(b"\n") - 1
    assert 0 < num_done < 5128
    plan = prepare(capsys, root, "--store", store)[1]
    assert plan.startswith(f"store: 5,128 images of 256 x 256 px, {num_done:,} of them done, the others ")
