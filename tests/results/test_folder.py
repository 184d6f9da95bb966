"""Reading a finished run again."""

import json
import shutil

import pytest
import torch

from dogs_accel.calibration import fit_temperature
from dogs_accel.datasets import open_dataset
from dogs_accel.inference.trained import eval_recipe, load_model
from dogs_accel.results.folder import choose_run, read_runs_folder
from dogs_accel.results.writing import score_predictions
from dogs_accel.training.checkpoint import CheckpointError
from pipelines import EVAL

pytestmark = pytest.mark.slow


@pytest.fixture
def results(tiny_results, tmp_path):
    """The tiny results, to be changed."""
    return shutil.copytree(tiny_results, tmp_path / "results")


def chosen(results, name=None):
    return choose_run(read_runs_folder(results), name)


def record_path(results, name="resnet18_full"):
    return results / "cnn" / name / f"{name}_run_metadata.json"


def test_a_finished_run_knows_what_it_was(tiny_results, dogs_root):
    run = chosen(tiny_results)
    assert (run.name, run.family) == ("resnet18_full", "cnn")
    assert eval_recipe(run) == EVAL.at(32)
    assert run.class_names == open_dataset(dogs_root).class_names
    assert (run.record.identity["model"], run.record.config.image_size) == ("resnet18", 32)
    assert run.val_accuracy == json.loads((run.folder / "metrics.json").read_text())["val"]["accuracy"]


def test_scores_by_views_are_those_of_their_mean_and_the_plain_ones_stay(tiny_results):
    run = chosen(tiny_results)
    plain, by_views = ({split: run.predictions(split, tta=tta) for split in ("val", "test")} for tta in (False, True))
    metrics = json.loads((run.folder / "metrics.json").read_text())
    found = metrics.pop("tta")
    assert metrics == as_json(score_predictions("ResNet-18", plain["val"], plain["test"]))
    assert (found.pop("views"), found.pop("num_views")) == ("flip", 2)
    gain = found.pop("differences")["accuracy"]
    expected = as_json(score_predictions("ResNet-18", by_views["val"], by_views["test"]))
    assert found | {"model": "ResNet-18"} == expected
    assert gain["difference"] == pytest.approx(found["accuracy"] - metrics["accuracy"])
    assert gain["verdict"] in ("no difference shown", "better with", "better without")
    assert by_views["test"].ids.tolist() == plain["test"].ids.tolist()
    assert run.record.summary["test_tta/accuracy"] == found["accuracy"]


def as_json(content):
    return json.loads(json.dumps(content))


def test_the_temperature_is_the_recorded_one_or_fitted_on_validation(results):
    run = chosen(results)
    metrics = json.loads((run.folder / "metrics.json").read_text())
    (run.folder / "metrics.json").write_text(
        json.dumps(metrics | {"temperature": {"value": 1.25, "low": 1, "high": 2}})
    )
    assert chosen(results).temperature == 1.25
    metrics.pop("temperature", None)
    (run.folder / "metrics.json").write_text(json.dumps(metrics))
    val = run.predictions("val")
    fitted = fit_temperature(torch.from_numpy(val.logits), torch.from_numpy(val.labels))
    expected = fitted.temperature if fitted.problem is None else None
    again = chosen(results)
    assert (again.temperature, again.why_no_temperature) == (expected, fitted.problem)


def test_the_best_run_is_chosen_by_validation_accuracy_unless_one_is_named(results):
    shutil.copytree(results / "cnn" / "resnet18_full", results / "cnn" / "other")
    record = json.loads(record_path(results).read_text())
    (results / "cnn" / "other" / "resnet18_full_run_metadata.json").unlink()
    record |= {"run_name": "other", "best_val_accuracy": record["best_val_accuracy"] + 0.1, "created_at": "2999"}
    record_path(results, "other").write_text(json.dumps(record))
    assert chosen(results).name == "other"
    assert chosen(results, "resnet18_full").name == "resnet18_full"
    assert [run.name for run in read_runs_folder(results).runs] == ["resnet18_full", "other"]
    record_path(results, "other").write_text(json.dumps(record | {"state": "running"}))
    assert chosen(results).name == "resnet18_full"
    with pytest.raises(ValueError, match=r"model: got 'resnet18_ful', expected .* \(did you mean 'resnet18_full'\?\)"):
        chosen(results, "resnet18_ful")


def test_the_record_of_an_older_version_is_said_to_be_one(results):
    record = json.loads(record_path(results).read_text())
    for key in ("step", "data_notice"):
        del record[key]
    record_path(results).write_text(json.dumps(record))
    for name in (None, "resnet18_full"):
        with pytest.raises(
            ValueError, match="resnet18_full was recorded by an older version, without data_notice, step;"
        ):
            chosen(results, name)


def test_what_is_no_folder_of_results_is_named(results, tmp_path):
    with pytest.raises(ValueError, match="nothing: not a folder"):
        read_runs_folder(tmp_path / "nothing")
    shutil.rmtree(results / "cnn")
    with pytest.raises(ValueError, match=r"found no finished run, expected <family>/<run>/<run>_run_metadata.json"):
        read_runs_folder(results)


def test_a_checkpoint_of_another_model_is_named(results):
    run = chosen(results)
    state = torch.load(run.folder / "best.pt", weights_only=True)
    state["model"].pop("fc.weight")
    torch.save(state, run.folder / "best.pt")
    with pytest.raises(CheckpointError, match=r"best.pt does not fit ResNet-18.*fc.weight"):
        load_model(run)


def test_a_renamed_folder_of_a_run_is_named(results):
    (results / "cnn" / "resnet18_full").rename(results / "cnn" / "mine")
    with pytest.raises(ValueError, match=r"cnn/mine/resnet18_full_run_metadata.json: the record of another folder"):
        read_runs_folder(results)
