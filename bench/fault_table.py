"""The faults that tests bring about, as Markdown; `bench.write_docs` puts them into docs/reliability.md.

A test says its fault by `@pytest.mark.fault(kind, what, then)`: three strings, of which the last is the promise that
the test holds the product to.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
KINDS = (
    "Photos", "Folders and names", "Lists and annotations", "Archives and checkpoints", "Training and models",
    "Scores and figures", "Disk", "Signals and processes", "Machine and environment", "Command line",
)  # fmt: skip
"""Of faults, in the order of the page."""


@dataclass(frozen=True)
class Fault:
    """A fault that a test brings about."""

    kind: str
    what: str
    then: str
    """What happens, as a user sees it."""
    test: str
    """Its file below tests, and its name: commands/test_ending.py::test_an_error_is_one_line."""


def faults() -> list[Fault]:
    """Find the faults of all tests, by kind and then by test. Raises ValueError for a mark of another form."""
    found = [fault for path in sorted(TESTS.rglob("test_*.py")) for fault in faults_of(path)]
    return sorted(found, key=lambda fault: KINDS.index(fault.kind))


def faults_of(path: Path) -> Iterator[Fault]:
    """Find the faults of a file of tests."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        for mark in node.decorator_list:
            if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.fault":
                test = f"{path.relative_to(TESTS).as_posix()}::{node.name}"
                yield Fault(*said_by(mark, test), test)


def said_by(mark: ast.Call, test: str) -> tuple[str, str, str]:
    """Read the three strings of a mark."""
    said = [word.value for word in mark.args if isinstance(word, ast.Constant) and isinstance(word.value, str)]
    if len(said) != 3 or len(mark.args) != 3 or mark.keywords or said[0] not in KINDS:
        raise ValueError(
            f"{test}: got {ast.unparse(mark)}, expected fault(kind, what, then) with a kind of {', '.join(KINDS)}"
        )
    return said[0], said[1], said[2]


def fault_table() -> str:
    """Lay out the faults, a table a kind."""
    blocks, found = [], faults()
    for kind in KINDS:
        rows = [fault for fault in found if fault.kind == kind]
        if rows:
            blocks.append(f"### {kind}\n\n| fault | what happens | test |\n|---|---|---|")
            blocks[-1] += "".join(f"\n| {cell(row.what)} | {cell(row.then)} | {link(row)} |" for row in rows)
    return "\n\n".join(blocks)


def cell(text: str) -> str:
    """Write a text into a table."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def link(fault: Fault) -> str:
    """Write the link from the page to a test's file, named by where it is."""
    path = fault.test.partition("::")[0]
    return f"[{path.removesuffix('.py').replace('test_', '')}](../tests/{path})"
