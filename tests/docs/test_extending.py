"""The worked examples of docs/extending.md run, in their order, and print what they show."""

import contextlib
import io
import os
import re
import shutil
import sys
import types
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


def sections():
    """Blocks of each section by its title: (python or text, what it holds, its line on the page)."""
    found = {}
    text = PAGE.read_text(encoding="utf-8")
    for part in re.finditer(r"^## (.+?)\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL):
        begin = text[: part.start(2)].count("\n") + 1
        found[part[1]] = [
            (block[1], block[2], begin + part[2][: block.start(2)].count("\n")) for block in BLOCK.finditer(part[2])
        ]
    return found


SECTIONS = sections()


def test_there_is_a_section_for_each_way_to_extend():
    assert list(SECTIONS) == ["A dataset", "A model", "An augmentation", "A loss", "An operator"]
    assert all(blocks and blocks[0][0] == "python" for blocks in SECTIONS.values())


@pytest.mark.parametrize("title", SECTIONS)
def test_the_examples_of_a_section_run(title, flowers, tmp_path, monkeypatch):
    shutil.copytree(flowers, tmp_path / "flowers")
    monkeypatch.chdir(tmp_path)
    # Where this interpreter's own commands are, ninja among them.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    module = types.ModuleType(f"extending_{title.split()[-1]}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    printed = ""
    for kind, text, line in SECTIONS[title]:
        if kind == "text":
            assert printed == text, f"{PAGE.name}, line {line}"
            continue
        with contextlib.redirect_stdout(io.StringIO()) as out:
            # Empty lines before the code, so that a traceback has the lines of the page.
            exec(compile("\n" * (line - 1) + text, str(PAGE), "exec"), module.__dict__)
        printed = out.getvalue()
