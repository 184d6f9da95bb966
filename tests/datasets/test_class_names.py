import pytest

from dogs_accel.datasets.class_names import class_names


@pytest.mark.fault(
    "Folders and names",
    "folders such as German-shepherd, n1-crane, or n02085782- with nothing behind it",
    "the whole name is the class; only a WordNet id before a name is dropped",
)
def test_only_a_wordnet_id_is_dropped_and_only_behind_one_are_underscores_spaces():
    folders = ["n02085782-Japanese_spaniel", "n02086240-Shih-Tzu", "German-shepherd", "n1-crane", "fox_terrier", "001"]
    assert class_names(folders) == ["Japanese spaniel", "Shih-Tzu", "German-shepherd", "n1-crane", "fox_terrier", "001"]
    assert class_names(["n02085782", "n02085782-", "NA", "1e5"]) == ["n02085782", "n02085782-", "NA", "1e5"]


@pytest.mark.fault(
    "Folders and names",
    "two class folders of one name (n02012849-crane, n03126707-crane)",
    "told apart from the opening on: crane (n02012849)",
)
def test_names_are_unique():
    folders = ["n02012849-crane", "n03126707-crane", "crane", "n02085782-owl"]
    assert class_names(folders) == ["crane (n02012849)", "crane (n03126707)", "crane", "owl"]
    awkward = ["n02012849-crane", "n03126707-crane", "crane (n02012849)"]
    assert class_names(awkward) == awkward
