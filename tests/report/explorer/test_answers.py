import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from dogs_accel.evaluation.predictions import Predictions
from dogs_accel.report.explorer.answers import ExploredImages, answers_of, explored_images, image_rows, quality_data
from dogs_accel.report.summary import run_views
from dogs_accel.results.folder import read_runs_folder


def predictions(probabilities, labels, ids=None):
    logits = np.log(np.array(probabilities)).astype(np.float32)
    ids = [f"image {row}" for row in range(len(labels))] if ids is None else ids
    return Predictions(logits, np.array(labels, dtype=np.int64), np.array(ids))


def images_of(answers):
    return ExploredImages(answers.ids, answers.labels)


def test_an_answer_has_its_classes_by_falling_probability_and_where_the_true_one_stands():
    answers = predictions([[0.7, 0.2, 0.1], [0.25, 0.5, 0.25], [0.0004, 0.0996, 0.9]], [0, 2, 0])
    assert answers_of(answers, images_of(answers)) == {
        "top": [[0, 7000, 1, 2000, 2, 1000], [1, 5000, 0, 2500, 2, 2500], [2, 9000, 1, 996]],
        "true": [7000, 2500, 4],
        "rank": [1, 3, 3],
    }


def test_no_more_than_five_classes_are_listed_and_the_answer_always():
    answers = predictions([[0.2, 0.19, 0.18, 0.17, 0.16, 0.1], *[np.full(6, 1 / 6)] * 2], [5, 0, 5])
    packed = answers_of(answers, images_of(answers))
    assert packed["top"][0] == [0, 2000, 1, 1900, 2, 1800, 3, 1700, 4, 1600]
    # Of equals the first is the answer, as the scores have it.
    assert packed["rank"] == [6, 1, 6]
    flat = Predictions(np.zeros((1, 400), dtype=np.float32), np.array([7]), np.array(["image"]))
    assert answers_of(flat, images_of(flat))["top"] == [[0, 25]]


def test_logits_that_are_no_numbers_have_an_answer_and_no_probability():
    answers = Predictions(
        np.array([[1.0, np.nan], [2.0, 1.0]], dtype=np.float32), np.array([0, 1]), np.array(["a", "b"])
    )
    packed = answers_of(answers, images_of(answers))
    assert (packed["top"][0], packed["true"][0], packed["rank"][0]) == ([1, None], None, None)
    assert answers.predicted[0] == 1
    assert packed["rank"][1] == 2


def test_an_image_that_a_run_was_not_tested_on_has_no_answer():
    images = ExploredImages(np.array(["z", "b", "a"]), np.array([0, 1, 1]))
    packed = answers_of(predictions([[0.1, 0.9], [0.2, 0.8]], [1, 0], ["a", "z"]), images)
    assert packed == {"top": [[1, 8000, 0, 2000], None, [1, 9000, 0, 1000]], "true": [2000, None, 9000],
                      "rank": [2, None, 1]}  # fmt: skip


def test_answers_are_those_of_the_saved_logits(tiny_results):
    [view] = run_views([read_runs_folder(tiny_results)])
    images, test = explored_images([view]), view.run.predictions("test")
    packed = answers_of(test, images)
    assert len(images.ids) == 24
    assert (np.diff(images.labels) >= 0).all()
    probabilities = dict(zip(test.ids.tolist(), softmax(test.logits.astype(np.float64), axis=1), strict=True))
    for image_id, label, top, true, rank in zip(images.ids, images.labels, *packed.values(), strict=True):
        own = probabilities[image_id]
        assert top[::2] == np.argsort(-own)[: len(top) // 2].tolist()
        assert np.abs(np.array(top[1::2]) / 10_000 - own[top[::2]]).max() <= 5.1e-5
        assert abs(true / 10_000 - own[label]) <= 5.1e-5
        assert rank == 1 + (own > own[label]).sum()
    assert sum(rank == 1 for rank in packed["rank"]) == view.run.metrics["num_correct"]


def test_qualities_are_those_of_the_metadata_and_tenths_those_of_the_tables(tiny_results):
    folder = read_runs_folder(tiny_results)
    views = run_views([folder])
    images = explored_images(views)
    packed = {each["name"]: each for each in quality_data(image_rows(folder, images))}
    metadata = pd.read_csv(tiny_results / "metadata_with_quality.csv").set_index("image_id").loc[images.ids]
    assert packed["brightness"]["values"] == (metadata["brightness_mean"] * 1000).round().astype(int).tolist()
    assert packed["area"]["values"] == (metadata["width"] * metadata["height"]).tolist()
    table = pd.read_csv(views[0].run.folder / "quality_vs_error.csv")
    for name, each in packed.items():
        expected = table[table["quantity"] == name].set_index("tenth")["num_images"].to_dict()
        tenths, counts = np.unique(np.array(each["tenths"]) + 1, return_counts=True)
        assert dict(zip(tenths.tolist(), counts.tolist(), strict=True)) == expected


def test_an_image_without_metadata_has_no_qualities(full_folder):
    folder = read_runs_folder(full_folder)
    images = explored_images(run_views([folder])[:1])
    known = folder.table("metadata_with_quality.csv")
    known = known[known["image_id"] != images.ids[3]]
    folder = type(folder)(folder.folder, folder.runs, (), {"metadata_with_quality.csv": known})
    contrast = quality_data(image_rows(folder, images))[1]
    assert contrast["values"][3] is None
    assert contrast["tenths"][3] is None
    assert sum(value is None for value in contrast["values"]) == 1
    folder = type(folder)(
        folder.folder, folder.runs, (), {"metadata_with_quality.csv": known.assign(width=9, height=9)}
    )
    area = quality_data(image_rows(folder, images))[3]
    assert area["values"][:4] == [81, 81, 81, None]
    assert set(area["tenths"]) == {None}  # all are equally large
    folder = type(folder)(folder.folder, folder.runs, (), {"metadata_with_quality.csv": None})
    assert quality_data(image_rows(folder, images)) == []


def test_runs_that_know_an_image_by_other_classes_are_refused(full_folder):
    views = run_views([read_runs_folder(full_folder)])[:2]
    test = views[1].run.predictions("test")
    other = Predictions(test.logits, (test.labels + 1) % 5, test.ids)
    views[1].run._known["test_logits.npz"] = other
    with pytest.raises(ValueError, match=r"ResNet-50, staged: test image 'n000_test0' is of class 1, expected 0 as in"):
        explored_images(views)
