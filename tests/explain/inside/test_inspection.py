"""The files of feature maps that a run writes, against the run's own model and images."""

import json

import numpy as np
import pytest
import torch

from dogs_accel.explain.inside.inspection import MOST_STORED, _stored
from dogs_accel.explain.inside.run import write_run_maps
from dogs_accel.inference.trained import load_trained
from dogs_accel.results.folder import choose_run, read_runs_folder


def test_a_run_has_the_maps_of_eight_test_images(tiny_results):
    run = choose_run(read_runs_folder(tiny_results), None)
    content = json.loads((run.folder / "feature_maps.json").read_text())
    with np.load(run.folder / "feature_maps.npz") as arrays:
        arrays = dict(arrays)
    test = run.predictions("test")
    positions = [test.ids.tolist().index(image["id"]) for image in content["images"]]
    assert len(set(positions)) == 8
    assert [image["true_class"] for image in content["images"]] == [
        run.class_names[test.labels[at]] for at in positions
    ]
    assert content["sample"]["num_images"] == len(test.labels) == 24
    assert set(content["classes"]) <= set(run.class_names)
    assert arrays["crops"].shape == (8, 32, 32, 3)
    # The maps of layer1 by a hook written by hand, on the crops.
    trained = load_trained(run, torch.device("cpu"))
    std, mean = (torch.tensor(each).view(3, 1, 1) for each in (trained.recipe.std, trained.recipe.mean))
    images = (torch.from_numpy(arrays["crops"]).permute(0, 3, 1, 2) / 255 - mean) / std
    seen = []
    trained.model.layer1.register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.no_grad():
        trained.model(images)
    number = [stage["name"] for stage in content["stages"]].index("layer1")
    num_compared = 0
    for image, chosen in enumerate(content["stages"][number]["active"]):
        assert [each["score"] for each in chosen] == sorted((each["score"] for each in chosen), reverse=True)
        for at, each in enumerate(chosen):
            stored, own = arrays[f"active_{number}"][image, at].astype(float), seen[0][image, each["channel"]]
            between = (stored > 0) & (stored < 255)
            if between.sum() > 5 and np.ptp(stored[between]) > 50:  # the same but for scale and rounding
                assert np.corrcoef(stored[between], own.numpy()[between])[0, 1] > 0.99
                num_compared += 1
    assert num_compared > 10
    for number, stage in enumerate(content["stages"]):
        shape = (8, 6, *stage["stored_cells"])
        assert arrays[f"active_{number}"].shape == arrays[f"separating_{number}"].shape == shape
        assert max(stage["stored_cells"]) <= MOST_STORED
        assert {each["d_held_out"] is None for each in stage["separating"]} == {False}


@pytest.mark.parametrize("side", [73, 112, 149])
def test_fine_maps_are_stored_by_the_means_of_their_parts(side):
    """Also where no whole number of cells makes up a stored one: the sides of Inception are prime."""
    stored = _stored(np.broadcast_to(np.linspace(0, 1, side), (1, 2, side, side)).astype(np.float32))
    assert stored.shape == (1, 2, MOST_STORED, MOST_STORED)
    per = side / MOST_STORED  # cells, over whose middle a map that rises evenly has its mean
    at = (np.arange(MOST_STORED) + 0.5) * per - 0.5
    assert np.abs(stored - 255 * at / (side - 1)).max() < 1.5


def test_runs_of_one_seed_show_the_same_images(tiny_results):
    folder = tiny_results / "cnn" / "resnet18_full"
    shown = [image["id"] for image in json.loads((folder / "feature_maps.json").read_text())["images"]]
    ids = read_runs_folder(tiny_results).runs[0].predictions("test").ids
    seed = json.loads((tiny_results / "config.json").read_text())["seed"]
    assert shown == ids[np.random.default_rng(seed).permutation(len(ids))[:8]].tolist()


def test_what_has_no_maps_says_why(tmp_path):
    from types import SimpleNamespace

    from dogs_accel.evaluation.predictions import Predictions

    one_class = Predictions(np.ones((3, 2), np.float32), np.zeros(3, np.int64), np.array(["a", "b", "c"]))
    data = SimpleNamespace(ids=["a", "b", "c"], class_names=["x", "y"])
    [written] = write_run_maps(tmp_path, None, None, one_class, data, None)
    assert json.loads(written.read_text()) == {
        "stages": [], "reason": "classes: got images of one class, expected two"
    }  # fmt: skip
