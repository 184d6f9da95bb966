"""What is said of a dataset in sentences, titles and file names, and what was published about it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dogs_accel.runtime.terminal import escaped

_THING = re.compile(r"file|photo|folder")

DATASET_FILE = "dataset.json"
"""Where the facts lie beside the tables of a dataset."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetFacts:
    """What a dataset is called and what must be said with every result on it; dataset.json holds it."""

    name: str
    """For records: stanford-dogs, synthetic, or the name of the folder."""
    title: str
    """For titles of pages."""
    layout: str
    """What was recognised on disk, for people."""
    noun: str = "class"
    """What the classes are, in the singular."""
    plural: str = "classes"
    notice: str | None = None
    """A sentence to be shown with every result; None where there is nothing to say."""
    notice_title: str = "Notice"
    """Two words for it."""
    published: str | None = None
    """Key of `published_about`, for data about which something was published; None for all others."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """How much opening left out, by what it was: "hidden file", "class folder without a photo"."""

    def count(self, num: int) -> str:
        """Write a number of classes with their noun: "1 class", "12 classes"."""
        return f"{num:,} {self.noun if num == 1 else self.plural}"

    def lines(self) -> list[str]:
        """Say what is to be said with every result, and the `layout_lines`, for a terminal."""
        return [*([escaped(self.notice)] if self.notice else []), *self.layout_lines()]

    def layout_lines(self) -> list[str]:
        """Say what was recognised and what was left out, a line each, for a terminal."""
        left_out = [f"left out {escaped(self.left_out_text)}"] if self.left_out else []
        return [f"layout   {escaped(self.layout)}", *left_out]

    @property
    def left_out_text(self) -> str:
        """Count what was left out, in words; empty where nothing was."""
        return ", ".join(f"{num:,} {what if num == 1 else _plural(what)}" for what, num in self.left_out.items())

    def as_json(self) -> dict[str, Any]:
        """Lay out dataset.json."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: Any) -> DatasetFacts:
        """Read what `as_json` laid out. Raises ValueError, which names the field."""
        if not isinstance(content, Mapping):
            raise ValueError(f"got {str(content)[:40]!r}, expected the facts of a dataset")
        given: dict[str, Any] = {}
        for each in dataclasses.fields(cls):
            if each.name not in content:
                if each.default is each.default_factory is dataclasses.MISSING:
                    raise ValueError(f"missing {each.name}")
                continue
            value, is_optional = content[each.name], each.default is None
            expected = Mapping if each.name == "left_out" else str
            is_wrong = not isinstance(value, expected) and not (value is None and is_optional)
            if is_wrong or (expected is Mapping and not all(isinstance(num, int) for num in value.values())):
                raise ValueError(f"{each.name}: got {value!r}, expected {'counts' if expected is Mapping else 'text'}")
            given[each.name] = value
        return cls(**given)


def _plural(what: str) -> str:
    return _THING.sub(lambda found: f"{found[0]}s", what, count=1)
