"""The tables of a folder of runs, from the runs alone."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from dogs_accel.results import tables
from dogs_accel.results.folder import read_runs_folder
from dogs_accel.results.tables import write_confusion_clusters, write_tables
from dogs_accel.runtime.files import UnwritableError, sha256


def test_tables_made_again_of_a_folder_are_those_that_lie_there(full_folder, tmp_path):
    folder = read_runs_folder(full_folder)
    written = write_tables(tmp_path, folder.runs, folder.facts)
    csv = [path for path in written if path.suffix == ".csv"]
    assert len(csv) == 6
    for path in csv:
        assert path.read_bytes() == (full_folder / path.relative_to(tmp_path)).read_bytes(), path.name


@pytest.mark.slow
def test_the_clusters_of_a_finished_run(tiny_results, tmp_path):
    runs = read_runs_folder(tiny_results).runs
    table = pd.read_csv(write_confusion_clusters(tmp_path, runs))
    test = runs[0].predictions("test")
    num_mistakes = (test.predicted != test.labels).sum()
    assert table.columns.tolist() == ["run", "cluster", "classes", "num_confusions", "share_of_mistakes"]
    assert set(table["run"]) == {"resnet18_full"}
    np.testing.assert_allclose(table["share_of_mistakes"], table["num_confusions"] / num_mistakes)
    assert {name for names in table["classes"] for name in names.split("; ")} <= set(runs[0].class_names)


@pytest.mark.usefixtures("undrawn")
def test_what_could_not_be_made_is_noted_until_the_manifest_has_it(full_folder, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise UnwritableError("MANIFEST.json cannot be written")

    folder = shutil.copytree(full_folder, tmp_path / "run")
    note = folder / "not_made.json"
    note.write_text('{"confusion_clusters.csv": "no clusters"}\n')
    (folder / "confusion_clusters.csv").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(tables, "update_manifest", fail)
        with pytest.raises(UnwritableError):
            tables.remake_tables(read_runs_folder(folder))
    assert note.exists()
    tables.remake_tables(read_runs_folder(folder))
    assert not note.exists()
    listed = json.loads((folder / "MANIFEST.json").read_text())["files"]
    assert listed["confusion_clusters.csv"]["sha256"] == sha256(folder / "confusion_clusters.csv")
