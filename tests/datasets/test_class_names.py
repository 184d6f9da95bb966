from dogs_accel.datasets.class_names import class_names


def test_only_a_wordnet_id_is_dropped_and_only_behind_one_are_underscores_spaces():
    folders = ["n02085782-Japanese_spaniel", "n02086240-Shih-Tzu", "German-shepherd", "n1-crane", "fox_terrier", "001"]
    assert class_names(folders) == ["Japanese spaniel", "Shih-Tzu", "German-shepherd", "n1-crane", "fox_terrier", "001"]
    assert class_names(["n02085782", "n02085782-", "NA", "1e5"]) == ["n02085782", "n02085782-", "NA", "1e5"]


def test_names_are_unique():
    folders = ["n02012849-crane", "n03126707-crane", "crane", "n02085782-owl"]
    assert class_names(folders) == ["crane (n02012849)", "crane (n03126707)", "crane", "owl"]
    awkward = ["n02012849-crane", "n03126707-crane", "crane (n02012849)"]
    assert class_names(awkward) == awkward
