"""The files of a run's explanations: which images, aligned with what the model was fed, and scored."""

import dataclasses
import functools
import itertools
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from dogs_accel.datasets import Dataset, DatasetFacts, open_dataset
from dogs_accel.eda.metadata import describe_metadata, write_metadata
from dogs_accel.evaluation.predictions import Predictions, predict
from dogs_accel.explain.drawings import Drawing, blend, crop_pixels, explanation_figure
from dogs_accel.explain.run import choose_images, picture_name, write_explanations
from dogs_accel.models.build import build_model
from dogs_accel.models.specs import model_spec
from pipelines import EVAL, make_loader
from tests.support.drawn_figures import stands_out

COLUMNS = [
    "id", "group", "true_class", "pred_class", "confidence", "method", "drop_hottest", "drop_random", "heat_in_box",
    "box_share", "drop_shifted",
]  # fmt: skip
XML = "<annotation><object><bndbox>{}</bndbox></object></annotation>"


def loader_of(data, recipe, index):
    paths = [data.paths[i] for i in index]
    return make_loader(paths, data.labels[index], recipe, backend="dali", batch_size=5, device="cpu")


def predictions_of(model, data, recipe, index):
    with loader_of(data, recipe, index) as loader:
        return predict(model, loader, [data.ids[i] for i in index])


def explain(folder, model, data, recipe, predictions, **settings):
    load = functools.partial(loader_of, data, recipe)
    return write_explanations(folder, model, load, predictions, data, recipe, title="A run", **settings)


def predictions(logits, labels):
    logits = np.asarray(logits, dtype=np.float32)
    ids = np.array([f"n{i}" for i in range(len(logits))])
    return Predictions(logits, np.asarray(labels, dtype=np.int64), ids)


def test_confident_right_confident_wrong_and_random_images_are_chosen():
    rng = np.random.default_rng(0)
    strength = rng.permutation(30).astype(float)
    made = predictions(np.stack([strength, np.zeros(30)], axis=1), np.arange(30) % 2)
    chosen = choose_images(made, seed=1, sample_size=20)
    by_group = {name: [at for group, at in chosen.drawn if group == name] for name, _ in chosen.drawn}
    right = [at for at in np.argsort(-strength) if at % 2 == 0 and strength[at] > 0]
    wrong = [at for at in np.argsort(-strength) if at % 2 == 1]
    assert by_group["confident_right"] == right[:4]
    assert by_group["confident_wrong"] == wrong[:4]
    assert by_group["random"] == chosen.sample[:8].tolist()
    assert len(set(chosen.sample)) == 20
    assert choose_images(made, seed=1).sample[:20].tolist() == chosen.sample.tolist()
    assert choose_images(made, seed=2).sample[:20].tolist() != chosen.sample.tolist()
    np.testing.assert_allclose(made.confidence, 1 / (1 + np.exp(-strength)))


def test_where_there_are_few_images_few_are_chosen():
    chosen = choose_images(predictions([[2, 0], [1, 0]], [0, 0]))
    assert [group for group, _ in chosen.drawn] == ["confident_right"] * 2 + ["random"] * 2
    with pytest.raises(ValueError, match="sample_size: got 0, expected an integer >= 1"):
        choose_images(predictions([[2, 0]], [0]), sample_size=0)


# --- alignment --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def red_squares(tmp_path_factory):
    """Photos of many sizes with one red square near a border of what is left after the crop, and its box."""
    root = tmp_path_factory.mktemp("squares")
    places = [(0.09, 0.1), (0.09, 0.72), (0.72, 0.09), (0.72, 0.72), (0.4, 0.09), (0.72, 0.4)]
    sizes = [(300, 400), (500, 250), (256, 256), (333, 512), (200, 640), (480, 480)]
    (root / "Annotation" / "n1-a").mkdir(parents=True)
    paths = []
    for number, ((height, width), (top, left)) in enumerate(zip(sizes, places, strict=True)):
        pixels = np.full((height, width, 3), 118, dtype=np.uint8)
        ymin, ymax, xmin, xmax = (
            int(at * side) for at, side in ((top, height), (top + 0.2, height), (left, width), (left + 0.2, width))
        )
        pixels[ymin:ymax, xmin:xmax] = (255, 0, 0)
        path = root / f"{number}.png"
        Image.fromarray(pixels).save(path)
        paths.append(str(path))
        box = f"<xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>"
        (root / "Annotation" / "n1-a" / str(number)).write_text(XML.format(box))
    return Dataset(
        facts=DatasetFacts(name="squares", title="squares", layout="made here"),
        root=root,
        image_root=root,
        ids=[str(number) for number in range(len(paths))],
        paths=paths,
        labels=np.zeros(len(paths), dtype=np.int64),
        class_names=["a", "b"],
        folder_names=["n1-a", "n2-b"],
        official_split=["official_test"] * len(paths),
        annotation_dir=root / "Annotation",
    )


class RedNet(nn.Module):
    """Class a is how red the reddest parts are; nothing is trained."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 1, 16, stride=16), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.features[0].weight.data = torch.tensor([1.0, -1, -1])[None, :, None, None].expand(1, 3, 16, 16) / 256
        self.features[0].bias.data.fill_(-1)

    def forward(self, images):
        red = self.pool(self.features(images)).flatten(1)
        return torch.cat([20 * red, torch.ones_like(red)], dim=1)


def test_heat_lies_in_the_box_after_squash_and_crop(red_squares, tmp_path):
    """A map that is drawn over the whole squashed photo, as was published, misses half of these boxes."""
    model = RedNet()
    every = np.arange(len(red_squares))
    made = predictions_of(model, red_squares, EVAL, every)
    explain(tmp_path, model, red_squares, EVAL, made, num_draws=3)
    table = pd.read_csv(tmp_path / "explanation_scores.csv")
    assert len(table) == 6
    assert table["box_share"].between(0.03, 0.06).all()
    assert (table["heat_in_box"] > 0.6).all()  # the bilinear rim of 16 px cells lies outside
    summary = json.loads((tmp_path / "explanations.json").read_text())["methods"]["gradcam"]
    assert summary["verdict"] == summary["verdict_shifted"] == "better than random"
    assert summary["drop_hottest"]["mean"] == pytest.approx(table["drop_hottest"].mean())
    low, high = summary["hottest_less_random"]["interval"]
    assert low < (table["drop_hottest"] - table["drop_random"]).mean() < high
    # Without its square no image is of class a any more: the whole confidence falls, but for what class a keeps.
    rest = 1 / (1 + np.e)
    np.testing.assert_allclose(table["drop_hottest"], table["confidence"] - rest, atol=0.02)


@pytest.mark.fault(
    "Lists and annotations",
    "an annotation that cannot be used, among good ones",
    "named once before training; its image is scored without a box",
)
def test_an_annotation_that_cannot_be_used_is_named_before_and_scored_as_none(red_squares, tmp_path):
    folder = tmp_path / "Annotation"
    shutil.copytree(red_squares.annotation_dir, folder)
    (folder / "n1-a" / "2").write_text(XML.format("<xmin>300</xmin><ymin>1</ymin><xmax>310</xmax><ymax>9</ymax>"))
    (folder / "n1-a" / "4").write_text("")
    data = dataclasses.replace(red_squares, annotation_dir=folder)
    every = np.arange(len(data))
    report = write_metadata(data, {"train": every, "val": every[:0], "test": every[:0]}, tmp_path, progress=False)
    table = pd.read_csv(tmp_path / "bad_annotations.csv", dtype=str)
    assert table["image_id"].tolist() == ["2", "4"]
    assert table["problem"][0].endswith("got the box (300, 1, 310, 9) outside the image of 256 x 256 px)")
    assert "annotations that cannot be used: 2, see bad_annotations.csv; the first: " in describe_metadata(report)
    model = RedNet()
    explain(tmp_path, model, data, EVAL, predictions_of(model, data, EVAL, every), num_draws=3)
    scores = pd.read_csv(tmp_path / "explanation_scores.csv").set_index("id")
    assert scores["heat_in_box"].isna().tolist() == [id_ in (2, 4) for id_ in scores.index]
    write_metadata(red_squares, {"train": every, "val": every[:0], "test": every[:0]}, tmp_path, progress=False)
    assert not (tmp_path / "bad_annotations.csv").exists()


def test_what_is_drawn_is_what_was_fed(red_squares):
    with loader_of(red_squares, EVAL, np.arange(6)) as loader:
        images = torch.cat([batch.images for batch in loader])
    for pixels, path in zip(crop_pixels(images, EVAL), red_squares.paths, strict=True):
        with Image.open(path) as image:
            squashed = image.resize((256, 256), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(pixels, np.asarray(squashed.crop((16, 16, 240, 240))))


@pytest.mark.parametrize("methods", [("gradcam",), ("attention_last", "attention_rollout")])
def test_long_names_stay_beside_each_other_in_the_gallery(methods):
    drawing = Drawing(
        group="random",
        pixels=np.zeros((32, 32, 3), np.uint8),
        heat={method: np.zeros((32, 32), np.float32) for method in methods},
        boxes=[],
        true_class="a_long_name_of_a_class_" * 4,
        pred_class="another_name_of_a_class_" * 4,
        confidence=0.5,
    )
    figure = explanation_figure([drawing] * 4, "a model of a long name " * 12)
    assert stands_out(figure) == []
    captions = [axes.title.get_window_extent() for axes in figure.axes]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(captions))


def test_cold_pixels_stay_as_they_are():
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    blended = blend(pixels, np.array([[0.0, 1.0], [0.0, 0.0]], dtype=np.float32))
    assert (blended[[0, 1, 1], [0, 0, 1]] == pixels[[0, 1, 1], [0, 0, 1]]).all()
    assert blended[0, 1].tolist() == [190, 192, 125]  # 3/4 of inferno's last colour over (3, 4, 5)


# --- files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "methods", "gallery"),
    [
        ("resnet18", ["gradcam"], "gradcam_gallery.png"),
        ("timm/vit_tiny_patch16_224", ["attention_last", "attention_rollout"], "attention_gallery.png"),
    ],
)
def test_files_and_columns(dogs_root, tmp_path, name, methods, gallery):
    data = open_dataset(dogs_root)
    spec = model_spec(name, 32)
    recipe = EVAL.at(32, mean=spec.mean, std=spec.std)
    model = build_model(spec, data.num_classes, "none").model
    made = predictions_of(model, data, recipe, data.split("test"))
    paths = explain(tmp_path, model, data, recipe, made, seed=3, sample_size=10, num_draws=1)
    table = pd.read_csv(tmp_path / "explanations.csv")
    assert list(table.columns) == COLUMNS
    drawn = choose_images(made, seed=3, sample_size=10).drawn
    assert table["id"].tolist() == [made.ids[at] for _, at in drawn for _ in methods]
    assert table["method"].tolist() == methods * len(drawn)
    assert table["group"].tolist() == [group for group, _ in drawn for _ in methods]
    assert table["true_class"].tolist() == [data.class_names[made.labels[at]] for _, at in drawn for _ in methods]
    assert table["pred_class"].tolist() == [data.class_names[made.predicted[at]] for _, at in drawn for _ in methods]
    assert table["heat_in_box"].dropna().between(0, 1).all()
    files = {f"explanations/{made.ids[at]}.png" for _, at in drawn}
    files |= {gallery, "explanations.csv", "explanation_scores.csv", "explanations.json"}
    assert {str(path.relative_to(tmp_path)) for path in paths} == files
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")} == files
    with Image.open(paths[0]) as strip:
        assert strip.size == (224 * (1 + len(methods)) + 4 * len(methods), 224)
    summary = json.loads((tmp_path / "explanations.json").read_text())
    assert list(summary["methods"]) == methods
    assert summary["class_specific"] == (methods == ["gradcam"])
    assert ("predicted breed" in summary["shows"]) == summary["class_specific"]
    for method in methods:
        assert summary["methods"][method]["drop_hottest"]["num_images"] == 10
    again = explain(tmp_path / "again", model, data, recipe, made, seed=3, sample_size=10, num_draws=1)
    assert (tmp_path / "again" / "explanations.csv").read_bytes() == (tmp_path / "explanations.csv").read_bytes()
    assert again[0].read_bytes() == paths[0].read_bytes()


def test_another_model_than_the_one_that_predicted_is_refused(red_squares, tmp_path):
    made = predictions_of(RedNet(), red_squares, EVAL, np.arange(6))
    other = RedNet()
    other.features[0].bias.data.fill_(-1e9)
    with pytest.raises(ValueError, match="its probabilities differ from those of the predictions by 0"):
        explain(tmp_path, other, red_squares, EVAL, made)
    with pytest.raises(ValueError, match="1 ids are not in the dataset, such as 'x'"):
        explain(tmp_path, other, red_squares, EVAL, Predictions(made.logits[:1], made.labels[:1], np.array(["x"])))


@pytest.mark.fault(
    "Training and models",
    "a model without a feature map or attention to draw",
    "training goes on; the report says why there are no heat maps",
)
def test_a_model_that_cannot_be_explained_leaves_the_reason(red_squares, tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 224 * 224, 2))
    made = predictions_of(model, red_squares, EVAL, np.arange(6))
    assert explain(tmp_path, model, red_squares, EVAL, made) == [tmp_path / "explanations.json"]
    written = json.loads((tmp_path / "explanations.json").read_text())
    assert written["method"] is None
    assert "Sequential has no module that gives a feature map" in written["reason"]


def test_the_picture_of_an_id_that_is_a_path_has_a_name_of_its_own(red_squares, tmp_path):
    """Ids of plain folders are paths; two of them differ in what is replaced alone."""
    ids = ["train/a/1.jpg", "train_a/1.jpg", "train/a_1.jpg", *red_squares.ids[3:]]
    data = dataclasses.replace(red_squares, ids=ids)
    model = RedNet()
    made = predictions_of(model, data, EVAL, np.arange(6))
    explain(tmp_path, model, data, EVAL, made)
    table = pd.read_csv(tmp_path / "explanations.csv")
    assert set(ids[:3]) <= set(table["id"])
    pictures = [path.name for path in (tmp_path / "explanations").iterdir()]
    assert sorted(pictures) == sorted({picture_name(name) for name in table["id"]})
    assert len(pictures) == table["id"].nunique()


@pytest.mark.fault(
    "Folders and names",
    "image names with slashes, .., or too many letters for a file",
    "their pictures get safe names in the run's folder",
)
@pytest.mark.parametrize("name", ["a/b", "../a", "..", "/etc/passwd", "a\\b", "c:a", ".hidden", "x" * 300, "é" * 200])
def test_whatever_an_id_is_its_picture_lies_in_the_folder(name, tmp_path):
    path = tmp_path / picture_name(name)
    path.write_bytes(b"")
    assert path.resolve().parent == tmp_path
    assert picture_name(name) != picture_name(f"{name}0")


def test_an_id_that_can_name_a_file_does():
    assert picture_name("n02085620_5927") == "n02085620_5927.png"
    assert picture_name("café 1") == "café 1.png"
