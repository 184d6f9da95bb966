"""From folders to names of classes, each of which stands for one class alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

_WORDNET_ID = re.compile(r"(n\d{8})[-_ ](?=.)")


def class_names(folder_names: Sequence[str]) -> list[str]:
    """Name the class of each folder; folder_names are unique, and so are the names.

    "n02085782-Japanese_spaniel" is "Japanese spaniel": behind a WordNet id what follows is the name, its underscores
    are spaces. Every other folder's name is kept as it is. Where two would be called the same, each says its id
    behind it: "crane (n02012849)".

    Example:
        >>> class_names(["n02012849-crane", "n03126707-crane", "fox_terrier"])
        ['crane (n02012849)', 'crane (n03126707)', 'fox_terrier']
    """
    short = [_without_id(name) for name in folder_names]
    counts = Counter(short)
    names = []
    for folder, name in zip(folder_names, short, strict=True):
        found = _WORDNET_ID.match(folder)
        names.append(f"{name} ({found[1]})" if counts[name] > 1 and found else name)
    return names if len(set(names)) == len(names) else list(folder_names)


def _without_id(folder_name: str) -> str:
    found = _WORDNET_ID.match(folder_name)
    return folder_name[found.end() :].replace("_", " ") if found else folder_name
