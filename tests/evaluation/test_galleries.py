"""What the galleries draw is what the model is fed."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from dogs_accel.datasets import open_dataset
from dogs_accel.eda.files import read_metadata
from dogs_accel.evaluation.galleries import (
    balanced_sample,
    fed_image,
    misclassified_figure,
    prediction_grid,
    write_misclassified,
)
from dogs_accel.evaluation.predictions import Predictions
from dogs_accel.plots import shortened
from dogs_accel.runtime.files import read_json
from pipelines import EVAL, RESNET_TRAIN, make_loader

RECIPE = EVAL.at(64)


BEYOND = replace(EVAL, name="beyond", resize=None, crop=300, padding=20, fill=(255, 128, 0))
"""Of which the model is fed more than there is of some photos."""


@pytest.mark.parametrize("recipe", [RECIPE, BEYOND], ids=lambda recipe: recipe.name)
def test_the_picture_is_what_the_evaluation_loader_gives(dogs_root, recipe):
    paths = open_dataset(dogs_root).paths[:8]
    with make_loader(paths, [0] * 8, recipe, backend="torch", device="cpu", num_threads=1) as loader:
        [batch] = loader
    pictures = np.stack([fed_image(path, recipe) for path in paths])
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (recipe.mean, recipe.std))
    fed = (torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255 - mean) / std
    torch.testing.assert_close(batch.images, fed, rtol=0, atol=1e-6)


def test_a_random_recipe_is_refused(dogs_root):
    with pytest.raises(ValueError, match="recipe: got resnet-train, which is random"):
        fed_image(open_dataset(dogs_root).paths[0], RESNET_TRAIN)


@pytest.fixture
def two_mistakes(dogs_root, tmp_path):
    """Predictions of three images of which two are wrong, and the rows of split_metadata.csv."""
    data = open_dataset(dogs_root)
    train, test = data.split("train"), data.split("test")[:3]
    labels = data.labels[test]
    logits = np.eye(4, dtype=np.float32)[labels] * 3
    logits[1:] = np.roll(logits[1:], 1, axis=1)
    rows = [(data.ids[i], data.paths[i], data.labels[i], split) for split, index in (("train", train), ("test", test))
            for i in index]  # fmt: skip
    splits = pd.DataFrame(rows, columns=["image_id", "image_path", "label", "split"])
    return Predictions(logits, labels, np.array([data.ids[i] for i in test])), splits, data.class_names


def test_each_mistake_stands_beside_its_example(two_mistakes, tmp_path):
    test, splits, names = two_mistakes
    written = write_misclassified(tmp_path, test, names, splits, RECIPE, "a run")
    assert [path.name for path in written] == ["misclassified.csv", "misclassified_gallery.png"]
    table = pd.read_csv(written[0])
    assert table["id"].tolist() == test.ids[1:].tolist()
    figure = misclassified_figure(table, RECIPE, "a run")
    assert len(figure.axes) == 4
    for wrong, example, row in zip(figure.axes[::2], figure.axes[1::2], table.itertuples(), strict=True):
        np.testing.assert_array_equal(wrong.images[0].get_array(), fed_image(row.image_path, RECIPE))
        np.testing.assert_array_equal(example.images[0].get_array(), fed_image(row.example_path, RECIPE))
        assert wrong.get_title() == row.true_class
        assert example.get_title() == row.pred_class
        assert wrong.get_xlabel() == f"taken for {row.pred_class}\nat {row.confidence:.1%}"


def test_files_that_are_gone_or_damaged_are_cells_that_say_so(two_mistakes, tmp_path):
    test, splits, names = two_mistakes
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    is_train = splits["split"] == "train"
    splits.loc[is_train, "image_path"] = str(broken)
    splits.loc[splits["image_id"] == test.ids[1], "image_path"] = str(tmp_path / "gone.jpg")
    write_misclassified(tmp_path, test, names, splits, RECIPE, "a run")
    table = pd.read_csv(tmp_path / "misclassified.csv", keep_default_na=False)
    figure = misclassified_figure(table, RECIPE, "a run")
    words = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert words == [["not found"], ["not readable"], [], ["not readable"]]
    table = table.assign(example_path="", image_path="")
    words = [axes.texts[0].get_text() for axes in misclassified_figure(table, RECIPE, "a run").axes]
    assert words == ["not in the metadata", "no training image"] * 2


@pytest.mark.fault("Scores and figures", "a run without a mistake", "no gallery of mistakes, and none is missed")
def test_without_a_mistake_there_is_no_picture(two_mistakes, tmp_path):
    test, splits, names = two_mistakes
    write_misclassified(tmp_path, test, names, splits, RECIPE, "a run")
    right = Predictions(np.eye(4, dtype=np.float32)[test.labels], test.labels, test.ids)
    [written] = write_misclassified(tmp_path, right, names, splits, RECIPE, "a run")
    assert pd.read_csv(written).empty
    assert not (tmp_path / "misclassified_gallery.png").exists()
    with pytest.raises(ValueError, match="at least one mistake"):
        misclassified_figure(pd.read_csv(written), RECIPE, "a run")


@pytest.mark.slow
def test_the_augmented_preview_is_what_the_model_got_in_its_first_epoch(tiny_results, tmp_path, monkeypatch):
    from dogs_accel.eda import run
    from dogs_accel.experiment.plan import plan_runs
    from dogs_accel.experiment.settings.files import config_from_json
    from dogs_accel.results.layout import CONFIG_FILE

    config = config_from_json(read_json(tiny_results / CONFIG_FILE))
    [planned] = plan_runs(config)
    shown = []
    draw = run.augmented_batch_figure
    monkeypatch.setattr(
        run, "augmented_batch_figure", lambda images, *rest: shown.append(images) or draw(images, *rest)
    )
    run.write_eda(read_metadata(tiny_results), tmp_path, seed=config.seed, recipe=planned.train_recipe)
    train = read_metadata(tiny_results).splits.query("split == 'train'")
    with make_loader(
        train["image_path"].tolist(), train["label"].tolist(), planned.train_recipe, backend="cached", batch_size=8,
        device="cpu", seed=planned.seed, shuffle=True, store_dir=tmp_path / "store",
    ) as loader:  # fmt: skip
        fed = {int(at): image for batch in loader for at, image in zip(batch.index, batch.images, strict=True)}
    [preview] = shown
    level = 1 / 255 / min(planned.train_recipe.std)
    torch.testing.assert_close(preview, torch.stack([fed[at] for at in range(8)]), rtol=0, atol=1.01 * level)


@pytest.mark.parametrize(("num_classes", "num"), [(10, 30), (4, 30), (120, 30), (7, 10), (3, 300)])
def test_a_sample_has_as_many_of_each_class_or_one_more(num_classes, num):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(num_classes), 12))
    chosen = balanced_sample(labels, num, seed=3)
    assert len(chosen) == len(set(chosen.tolist())) == min(num, len(labels))
    counts = np.bincount(labels[chosen], minlength=num_classes)
    assert counts.max() - counts.min() <= 1
    assert (np.diff(labels[chosen]) >= 0).all()
    assert balanced_sample(labels, num, seed=3).tolist() == chosen.tolist()
    assert num >= len(labels) or balanced_sample(labels, num, seed=4).tolist() != chosen.tolist()


def test_a_small_class_is_not_asked_for_more_than_it_has():
    labels = np.array([0] * 20 + [1])
    assert np.bincount(labels[balanced_sample(labels, 10, seed=0)]).tolist() == [9, 1]
    assert balanced_sample(np.array([], dtype=np.int64), 30, seed=0).size == 0


def test_the_grid_tells_right_from_wrong_in_words_too(two_mistakes):
    test, splits, names = two_mistakes
    paths = dict(zip(splits["image_id"], splits["image_path"], strict=True))
    figure = prediction_grid(test, names, paths, RECIPE, "a run", seed=1)
    shown = balanced_sample(test.labels, 30, seed=1)
    assert len(figure.axes) == len(shown) == 3
    for axes, at in zip(figure.axes, shown, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), fed_image(paths[test.ids[at]], RECIPE))
        assert axes.get_title() == names[test.labels[at]]
        said = "right" if at == 0 else f"wrong: {shortened(names[test.predicted[at]], 18)}"
        assert axes.get_xlabel() == f"{said}\n{test.confidence[at]:.0%}"
    assert "3 test images balanced over the classes: 1 right" in figure.get_suptitle()
