"""The metadata pass against the published loop in PIL, NumPy and matplotlib."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import rgb_to_hsv
from PIL import Image

from dogs_accel.cli import main
from dogs_accel.datasets import open_dataset
from dogs_accel.datasets.splits import SPLITS
from dogs_accel.eda.files import METADATA_COLUMNS, SPLIT_COLUMNS
from dogs_accel.eda.metadata import describe_metadata, write_metadata
from dogs_accel.eda.scan import scan_images
from dogs_accel.eda.tables import count_text
from pipelines import EVAL, BadImageError
from pipelines.recipe import IMAGENET_TRAIN
from pipelines.store.reading import find_store

PUBLISHED_COLUMNS = (
    "image_id", "image_path", "relative_path", "label", "class_name", "folder_name", "official_split",
    "width", "height", "aspect_ratio",
    "brightness_mean", "contrast_std", "saturation_mean", "r_mean", "g_mean", "b_mean",
)  # fmt: skip


def published_quality(path):
    """One turn of the published loop."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    rgb = np.asarray(image, dtype=np.float32) / 255.0
    grey = np.asarray(image.convert("L"), dtype=np.float32) / 255.0
    return [
        grey.mean(),
        grey.std(),
        rgb_to_hsv(rgb)[..., 1].mean(),
        *(rgb[..., channel].mean() for channel in range(3)),
    ]


def splits_of(data, **options):
    return {name: data.split(name, **options) for name in SPLITS}


@pytest.fixture(scope="module")
def written(dogs_root, tmp_path_factory):
    """The generated dataset, its splits, and the report of a pass over it."""
    data = open_dataset(dogs_root)
    folder = tmp_path_factory.mktemp("metadata")
    splits = splits_of(data)
    return data, splits, folder, write_metadata(data, splits, folder, progress=False)


def test_columns_order_and_values_are_the_published_ones(written):
    data, _, folder, _ = written
    table = pd.read_csv(folder / "metadata_with_quality.csv")
    assert tuple(table.columns) == METADATA_COLUMNS == PUBLISHED_COLUMNS
    assert table.image_id.tolist() == data.ids
    assert table.image_path.tolist() == data.paths
    assert table.relative_path[0] == "/".join(data.paths[0].split("/")[-2:])
    np.testing.assert_array_equal(table.label, data.labels)
    assert table.class_name.tolist() == [data.class_names[label] for label in data.labels]
    assert table.folder_name.tolist() == [data.folder_names[label] for label in data.labels]
    assert table.official_split.tolist() == data.official_split
    sizes = [Image.open(path).size for path in data.paths]
    assert list(zip(table.width, table.height, strict=True)) == sizes
    np.testing.assert_array_equal(table.aspect_ratio, [width / height for width, height in sizes])
    expected = np.array([published_quality(path) for path in data.paths])
    np.testing.assert_allclose(table.iloc[:, 10:], expected, atol=2e-6)


def test_statistics_of_real_photos_agree_with_the_published_loop(shared_data):
    data = open_dataset(shared_data / "stanford-dogs-mini")
    scan = scan_images(data, progress=False)
    assert not scan.problems
    some = np.arange(0, len(data), 19)
    expected = np.array([published_quality(data.paths[i]) for i in some])
    # 1e-3 would do; the decoders agree on every pixel, so that the published loop's float32 is all that differs.
    np.testing.assert_allclose(scan.stats[some], expected, rtol=0, atol=3e-6)


def test_split_rows_are_in_the_splits_own_order(written):
    data, splits, folder, _ = written
    table = pd.read_csv(folder / "split_metadata.csv")
    assert tuple(table.columns) == SPLIT_COLUMNS
    assert table.image_id.tolist() == [data.ids[i] for split in SPLITS for i in splits[split]]
    assert table.split.tolist() == [split for split in SPLITS for _ in splits[split]]


def test_normalisation_weighs_every_training_pixel_alike(written):
    data, splits, folder, _ = written
    found = json.loads((folder / "normalisation.json").read_text())
    pixels = np.concatenate(
        [np.asarray(Image.open(data.paths[i]).convert("RGB")).reshape(-1, 3) for i in splits["train"]]
    )
    assert found["train_pixels"]["num_pixels"] == len(pixels)
    assert found["train_pixels"]["num_images"] == len(splits["train"])
    np.testing.assert_allclose(found["train_pixels"]["mean"], (pixels / 255.0).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found["train_pixels"]["std"], (pixels / 255.0).std(axis=0), rtol=1e-9)
    means = [np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3).mean(axis=0) / 255 for path in data.paths]
    np.testing.assert_allclose(found["image_means"]["mean"], np.mean(means, axis=0), rtol=1e-12)
    assert found["image_means"]["num_images"] == len(data)


@pytest.fixture
def damaged(dogs_root, tmp_path):
    """A copy with a truncated, an empty and a missing file, a copied picture, and a resized one in the test split."""
    root = tmp_path / "dogs"
    shutil.copytree(dogs_root, root)
    data = open_dataset(root)
    train, test = data.split("train"), data.split("test")
    paths = {name: data.paths[i] for name, i in (
        ("truncated", train[0]), ("empty", train[1]), ("missing", test[0]),
        ("original", train[2]), ("copy", train[3]), ("small", test[1]),
    )}  # fmt: skip
    truncated = Path(paths["truncated"])
    truncated.write_bytes(truncated.read_bytes()[: truncated.stat().st_size // 2])
    Path(paths["empty"]).write_bytes(b"")
    Path(paths["missing"]).unlink()
    shutil.copy(paths["original"], paths["copy"])
    image = Image.open(paths["original"]).convert("RGB")
    image.resize((image.width * 3 // 4, image.height * 3 // 4)).save(paths["small"])
    return root, paths


def test_bad_files_are_listed_and_nothing_else_is_lost(damaged, tmp_path):
    root, paths = damaged
    data = open_dataset(root, check_files=False)
    report = write_metadata(data, splits_of(data), tmp_path, progress=False)
    bad = pd.read_csv(tmp_path / "bad_images.csv").set_index("image_path").problem
    assert set(bad.index) == {paths["truncated"], paths["empty"], paths["missing"]}
    assert "truncated" in bad[paths["truncated"]].lower()
    assert bad[paths["empty"]] == "an empty file"
    assert bad[paths["missing"]] == "No such file or directory"
    assert [data.paths[i] for i in report.bad_index] == [path for path in data.paths if path in set(bad.index)]
    table = pd.read_csv(tmp_path / "metadata_with_quality.csv")
    assert table.image_path.tolist() == [path for path in data.paths if path not in set(bad.index)]
    splits = pd.read_csv(tmp_path / "split_metadata.csv")
    assert sorted(splits.image_path) == sorted(table.image_path)
    for column in ("width", "height", "label"):
        joined = splits.merge(table, on="image_id")
        assert (joined[f"{column}_x"] == joined[f"{column}_y"]).all()
    said = describe_metadata(report)
    assert "decoded 69 of 72 files" in said
    assert "bad: 3" in said
    assert f"  {paths['empty']}: an empty file" in said
    assert "breeds without" not in said
    found = json.loads((tmp_path / "normalisation.json").read_text())
    assert found["train_pixels"]["num_images"] == len(data.split("train")) - 2
    assert found["image_means"]["num_images"] == 69
    np.testing.assert_allclose(found["image_means"]["mean"], table[["r_mean", "g_mean", "b_mean"]].mean(), rtol=1e-12)
    listed = pd.read_csv(tmp_path / "bad_images.csv").set_index("image_path").split
    assert listed[paths["empty"]] == "train"
    assert listed[paths["missing"]] == "test"


@pytest.mark.fault(
    "Photos",
    "one picture in training and in test, as a copy or made smaller",
    "listed with both parts; mirrored and cropped copies are said not to be looked for",
)
def test_duplicates_within_and_across_splits(damaged, tmp_path):
    root, paths = damaged
    data = open_dataset(root, check_files=False)
    report = write_metadata(data, splits_of(data), tmp_path, progress=False)
    table = pd.read_csv(tmp_path / "duplicates.csv")
    of_original = table.loc[table.image_path == paths["original"], "group"].item()
    group = table[table.group == of_original].set_index("image_path")
    assert {paths["original"], paths["copy"], paths["small"]} <= set(group.index)
    assert group.kind[[paths["original"], paths["copy"], paths["small"]]].tolist() == ["exact", "exact", "near"]
    assert group.split[[paths["original"], paths["small"]]].tolist() == ["train", "test"]
    assert group.distance[paths["small"]] <= 6
    said = describe_metadata(report)
    groups = [table[table.group == number] for number in sorted(set(table.group))]
    across = [sum(group[column].nunique() > 1 for group in groups) for column in ("split", "class_name")]
    assert across[0] >= 1
    assert f"{count_text(len(groups), 'group')} of {len(table)} files in all, see duplicates.csv" in said
    assert f"1 with identical files, {len(groups) - 1} alike by their looks alone" in said
    assert said.endswith("Mirrored, rotated and cropped copies were not looked for")
    assert f"{across[0]} across splits, {across[1]} across breeds" in said


@pytest.mark.fault("Photos", "pictures of one colour each", "not called one picture")
def test_pictures_of_one_colour_are_not_all_the_same_one(damaged, tmp_path):
    root, paths = damaged
    for name, colour in (("original", "black"), ("copy", "white"), ("small", (200, 10, 10))):
        Image.new("RGB", (64, 48), colour).save(paths[name])
    data = open_dataset(root, check_files=False)
    report = write_metadata(data, splits_of(data), tmp_path, progress=False)
    assert not set(report.duplicates.image_path) & {paths[name] for name in ("original", "copy", "small")}
    Image.new("RGB", (64, 48), "black").save(paths["copy"])
    report = write_metadata(data, splits_of(data), tmp_path, progress=False)
    of_black = report.duplicates[report.duplicates.image_path.isin([paths["original"], paths["copy"]])]
    assert of_black.kind.tolist() == ["exact", "exact"]


def test_the_pass_leaves_torch_its_threads(written):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        scan_images(written[0], progress=False)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_breeds_without_an_image_are_named(damaged, tmp_path):
    data = open_dataset(damaged[0], check_files=False)
    for i in np.flatnonzero(data.labels == 2):
        Path(data.paths[i]).write_text("no image")
    said = describe_metadata(write_metadata(data, splits_of(data), tmp_path, progress=False))
    assert f"breeds without any image that can be decoded: {data.class_names[2]}" in said
    assert f"and {len(pd.read_csv(tmp_path / 'bad_images.csv')) - 10} more in bad_images.csv" in said


def test_digests_are_those_of_the_content(written):
    data = written[0]
    scan = scan_images(data, progress=False)
    assert scan.digests[5] == hashlib.sha256(Path(data.paths[5]).read_bytes()).hexdigest()


def test_no_readable_training_image_is_an_error_that_leaves_the_list(damaged, tmp_path):
    data = open_dataset(damaged[0], check_files=False)
    for i in data.split("train"):
        Path(data.paths[i]).write_text("no image")
    (tmp_path / "bad_images.csv").write_text("of an earlier pass")
    with pytest.raises(
        BadImageError, match=r"^no image of the training split can be read, see .*bad_images\.csv; the "
    ):
        write_metadata(data, splits_of(data), tmp_path, progress=False)
    assert {data.ids[i] for i in data.split("train")} <= set(pd.read_csv(tmp_path / "bad_images.csv").image_id)
    assert not (tmp_path / "metadata_with_quality.csv").exists()


def test_an_unwritable_folder_is_found_before_the_pass(written, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("dogs_accel.eda.metadata.scan_images", lambda *_, **__: pytest.fail("the pass was started"))
    with pytest.raises(OSError, match="file"):
        write_metadata(written[0], written[1], tmp_path / "file" / "out")


def test_the_command_writes_where_it_is_told_and_says_what_it_found(damaged, tmp_path, capsys):
    root, paths = damaged
    assert main(["metadata", "--data", str(root), "--out", str(tmp_path / "out"), "--seed", "7"]) == 0
    output = capsys.readouterr()
    assert "generated" in output.out.splitlines()[0]
    assert paths["empty"] in output.out
    assert output.err == ""  # no terminal, no bar
    for name in ("metadata_with_quality.csv", "split_metadata.csv", "normalisation.json", "duplicates.csv"):
        assert str(tmp_path / "out" / name) in output.out
    data = open_dataset(root, check_files=False)
    splits = pd.read_csv(tmp_path / "out" / "split_metadata.csv")
    train = [data.ids[i] for i in data.split("train", seed=7)]
    assert splits.image_id[splits.split == "train"].tolist() == [i for i in train if i in set(splits.image_id)]


@pytest.mark.fault(
    "Photos",
    "`metadata` on data with a class whose files are all bad",
    "the tables are written, and the command fails with the class's name",
)
def test_a_class_without_an_image_fails_the_command_which_has_written_its_tables(damaged, tmp_path, capsys):
    data = open_dataset(damaged[0], check_files=False)
    for i in np.flatnonzero(data.labels == 2):
        Path(data.paths[i]).write_text("no image")
    with pytest.raises(SystemExit) as stop:
        main(["metadata", "--data", str(damaged[0]), "--out", str(tmp_path), "--no-store"])
    assert stop.value.code == 1
    name = data.class_names[2]
    assert capsys.readouterr().err == (
        f"dogs-accel metadata: FAILED: no image of 1 breed can be decoded, the first {name}\n"
    )
    assert name not in set(pd.read_csv(tmp_path / "metadata_with_quality.csv").class_name)


def metadata_lines(root, out, capsys, *arguments):
    """What the command prints below what it says of the data, whose tables are written."""
    assert main(["metadata", "--data", str(root), "--out", str(out), *arguments]) == 0
    assert len(pd.read_csv(out / "metadata_with_quality.csv")) == 72
    notice, layout, splits, *lines = capsys.readouterr().out.splitlines()
    assert [notice, layout] == open_dataset(root).facts.lines()
    assert splits.startswith("splits   train and test as the data have them; validation (15 %) carved out of training")
    return lines


def test_the_command_fills_the_store_of_prepare_and_says_so_before(dogs_root, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    plan, decoded, *_ = metadata_lines(dogs_root, tmp_path / "out", capsys)
    [folder] = (tmp_path / "dogs_accel" / "stores").iterdir()
    assert plan.startswith(f"store: 72 images of 256 x 256 px, 14.2 MB in {folder}, ")
    assert decoded.startswith("decoded 72 of 72 files in ")
    paths = open_dataset(dogs_root).paths
    store = find_store(folder, paths, EVAL)
    expected = Image.open(paths[3]).convert("RGB").resize((256, 256), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(store.images[store.take(paths, EVAL).rows[3]], expected)
    again = metadata_lines(dogs_root, tmp_path / "out", capsys)
    assert again[0] == f"store: 72 images of 256 x 256 px in {folder}, complete and current"
    plan, *_ = metadata_lines(dogs_root, tmp_path / "out", capsys, "--store", str(tmp_path / "s"), "--image-size", "32")
    assert plan.startswith(f"store: 72 images of 37 x 37 px, 295.7 kB in {tmp_path / 's'}, ")
    assert find_store(tmp_path / "s", paths, EVAL.at(32)) is not None
    arguments = ["--store", str(tmp_path / "t"), "--recipe", "imagenet-train"]
    plan, *_ = metadata_lines(dogs_root, tmp_path / "out", capsys, *arguments)
    assert plan.startswith("store: 72 images as they are, ")
    taken = find_store(tmp_path / "t", paths, IMAGENET_TRAIN).take(paths, IMAGENET_TRAIN)
    np.testing.assert_array_equal(taken.image(3), Image.open(paths[3]).convert("RGB"))


def test_the_command_fills_no_store_where_none_is_wanted(dogs_root, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert metadata_lines(dogs_root, tmp_path / "out", capsys, "--no-store")[0].startswith("decoded 72 of 72 files in ")
    assert not (tmp_path / "cache").exists()
    with pytest.raises(SystemExit):
        main(["metadata", "--data", str(dogs_root), "--no-store", "--store", str(tmp_path)])
    assert "not allowed with argument --no-store" in capsys.readouterr().err


@pytest.mark.fault(
    "Disk",
    "a store that cannot be filled: no room, no folder, somebody else's files",
    "one line; the tables are written all the same",
)
@pytest.mark.parametrize("reason", ["no room", "no folder", "other files", "a disk that fills"])
def test_a_store_that_cannot_be_filled_costs_the_tables_nothing(dogs_root, tmp_path, capsys, monkeypatch, reason):
    store, words = tmp_path / "store", {
        "no room": "MB free: too little; free some, or name a folder on another disk",
        "no folder": f"store {tmp_path / 'store'}: it cannot be used (Not a directory)",
        "other files": "pixels.npy is there without index.json",
        "a disk that fills": "the disk is full (No space left on device); what is finished stays",
    }[reason]  # fmt: skip
    if reason == "no room":
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=1_000_000))
    elif reason == "no folder":
        store.write_text("")
    elif reason == "other files":
        store.mkdir()
        (store / "pixels.npy").write_bytes(b"mine")
    else:
        monkeypatch.setattr(os, "pwrite", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    lines = metadata_lines(dogs_root, tmp_path / "out", capsys, "--store", str(store))
    [said] = [line for line in lines if line.startswith("the store is left out: ")]
    assert words in said
    assert sum(line.startswith("decoded 72 of 72 files in ") for line in lines) == 1


def test_the_command_names_what_is_wrong_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["metadata", "--data", str(tmp_path / "nowhere")])
    assert stop.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("dogs-accel metadata: error: ")


needs_real_dogs = pytest.mark.skipif(
    "DOGS_ACCEL_DATA" not in os.environ,
    reason="needs the real Stanford Dogs: set DOGS_ACCEL_DATA to its folder",
)


@needs_real_dogs
@pytest.mark.slow
def test_published_figures_of_the_real_dataset(tmp_path):
    """The preview rows and the means of the published experiment."""
    data = open_dataset(os.environ["DOGS_ACCEL_DATA"])
    report = write_metadata(data, splits_of(data), tmp_path)
    table = report.metadata.set_index("image_id")
    assert len(table) == 20_580
    columns = ["width", "height", "aspect_ratio", "brightness_mean", "contrast_std", "saturation_mean"]
    preview = {
        "n02085620_5927": [360, 300, 1.200, 0.348, 0.221, 0.445],
        "n02085620_4441": [375, 500, 0.750, 0.538, 0.099, 0.223],
        "n02085620_1502": [500, 333, 1.502, 0.543, 0.215, 0.267],
    }
    assert table.index[:3].tolist() == list(preview)
    for image_id, values in preview.items():
        assert table.loc[image_id, columns].astype(float).round(3).tolist() == values
    exact = [0.34822818636894226, 0.22122125327587128, 0.4449039101600647,
             0.3585076332092285, 0.35096296668052673, 0.30655813217163086]  # fmt: skip
    np.testing.assert_allclose(table.iloc[0, -6:].astype(float), exact, atol=2e-6)
    means = table[[*columns[3:], "r_mean", "g_mean", "b_mean"]].mean().round(4).tolist()
    assert means == [0.4522, 0.2261, 0.3047, 0.4761, 0.4518, 0.3910]
    assert table.width.mean() == pytest.approx(442.5, abs=0.05)
    assert table.height.mean() == pytest.approx(385.9, abs=0.05)
    assert table.aspect_ratio.mean() == pytest.approx(1.19, abs=0.005)
    sizes = table.groupby("label").size()
    assert (sizes.min(), sizes.max(), sizes.median()) == (148, 252, 159.5)
    shown = report.splits.head(3)
    assert shown.image_id.tolist() == ["n02107142_4013", "n02091244_5818", "n02107574_2912"]
    assert list(zip(shown.width, shown.height, strict=True)) == [(236, 350), (375, 500), (500, 334)]
    assert report.splits.split.value_counts().to_dict() == {"train": 10_200, "val": 1_800, "test": 8_580}
