"""The best of a column, where the numbers say that it is: what is marked in the tables of the report, and why not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dogs_accel.report.formats import listed

Shown = Callable[[int, int], bool | None]
"""Whether the data show that two rows differ in a column; None where nothing tests it."""


@dataclass(frozen=True)
class Marks:
    """The rows of a column that carry the mark, with what it means; or none, with what the leading rows are told."""

    rows: frozenset[int] = frozenset()
    leaders: frozenset[int] = frozenset()
    """Rows of the best value, marked or not."""
    title: str = ""
    """Of the leading cells."""
    why_none: str = ""
    """Why no row carries the mark, where that is worth a word."""

    def title_of(self, row: int) -> str:
        """What the cell of a row says when it is pointed at."""
        return self.title if row in self.leaders else ""


def mark_best(
    values: Sequence[float | None],
    labels: Sequence[str],
    *,
    larger: bool,
    shown: Shown | None = None,
    untested: str = "",
    not_shown: str = "no difference is shown to",
) -> Marks:
    """Mark the best values of a column: none where all are equal, or where a difference is asked for and not shown.

    values: None where a row has none; labels: of the rows, for the words; larger: whether more is better; shown: where
    it is given, the only best row must differ from every other; untested: of a column without a test, what its mark
    says beside "highest" or "lowest"; not_shown: what stands before the names of the rows that it may not beat.
    """
    known = {row: value for row, value in enumerate(values) if value is not None}
    if len(set(known.values())) < 2:
        return Marks()
    best = (max if larger else min)(known.values())
    leaders = frozenset(row for row, value in known.items() if value == best)
    extreme = "highest" if larger else "lowest"
    if shown is None:
        return Marks(leaders, leaders, f"{extreme} of the column{untested}")
    leader = min(leaders)
    rivals = [row for row in known if row != leader and shown(leader, row) is not True]
    if not rivals:
        return Marks(leaders, leaders, f"{extreme} of the column; a difference to each of the others is shown")
    tested = [row for row in rivals if shown(leader, row) is False]
    if not tested:
        words = "not tested against the others"
        return Marks(
            leaders=leaders, title=f"{extreme} of the column, {words}", why_none=f"{labels[leader]} is {words}"
        )
    others = "the other" if len(known) == 2 else f"{len(tested)} of the {len(known) - 1} others"
    return Marks(
        leaders=leaders,
        title=f"{extreme} of the column, but {not_shown} {listed([labels[row] for row in tested])}",
        why_none=f"{labels[leader]} leads, but {not_shown} {others}",
    )
