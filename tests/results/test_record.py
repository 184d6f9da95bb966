"""The record of a run: what is written is read again, and what an older version left out is known."""

import dataclasses
import json

import pytest

from dogs_accel.results.folder import read_record
from dogs_accel.results.layout import record_path
from dogs_accel.results.record import RunRecord


@pytest.fixture
def content(full_folder):
    """The record of a finished run, as its file holds it."""
    return json.loads(record_path(full_folder / "vit" / "vit_b16_staged").read_text())


def test_what_is_written_is_read_again(content):
    record = RunRecord.from_json(content)
    assert json.loads(json.dumps(record.as_json())) == content
    assert list(record.as_json()) == list(content)
    assert record.is_finished
    assert record.absent == frozenset()
    assert record.config.total_params == 85_890_936


def test_what_an_older_version_left_out_is_absent_and_stays_so(content):
    older = {key: value for key, value in content.items() if key not in ("sessions", "training_seconds")}
    record = RunRecord.from_json(older | {"of_another_version": 1})
    assert record.absent == {"sessions", "training_seconds"}
    assert not record.is_finished
    assert json.loads(json.dumps(record.as_json())) == older


def test_null_is_absent_but_for_what_may_be_none(content):
    record = RunRecord.from_json(content | {"profile": None, "updated_at": None, "amp": None})
    assert record.absent == {"profile", "updated_at"}
    assert (record.profile, record.updated_at, record.amp) == ({}, "", None)


def test_a_record_in_memory_is_what_a_reader_gets(content):
    record = RunRecord.from_json(content)
    recipe = dict(record.eval_recipe) | {"resize": (256, 256)}
    assert dataclasses.replace(record, eval_recipe=recipe).recorded().eval_recipe["resize"] == [256, 256]


def test_the_row_of_the_summary_has_config_and_summary_by_dotted_names(content):
    row = RunRecord.from_json(content | {"summary": {"test/accuracy": 0.5}}).as_row()
    assert list(row)[:3] == ["run_id", "run_name", "display_name"]
    assert row["config.model_name"] == "ViT-B/16"
    assert row["summary.test/accuracy"] == 0.5
    assert "identity" not in row


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ([], r"got '\[\]', expected the record of a run"),
        ({"run_id": "1", "config": {}}, "missing config.seed, config.family, "),
    ],
)
def test_what_is_no_record_is_named(broken, words, tmp_path):
    path = tmp_path / "a_run_metadata.json"
    path.write_text(json.dumps(broken))
    with pytest.raises(ValueError, match=f"{path}: {words}"):
        read_record(path)
