"""The tables of a folder of runs, from the runs alone."""

import numpy as np
import pandas as pd
import pytest

from dogs_accel.results.folder import read_runs_folder
from dogs_accel.results.tables import write_confusion_clusters, write_tables


def test_tables_made_again_of_a_folder_are_those_that_lie_there(full_folder, tmp_path):
    folder = read_runs_folder(full_folder)
    written = write_tables(tmp_path, folder.runs, folder.facts)
    tables = [path for path in written if path.suffix == ".csv"]
    assert len(tables) == 6
    for path in tables:
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
