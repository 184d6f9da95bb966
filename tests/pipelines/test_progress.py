"""A bar is for people who watch: a log file gets none of its steps."""

import io
import sys

import pytest

from pipelines.progress import passing_bar, progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.fault("Command line", "standard error that goes into a log file", "no progress bar in it")
@pytest.mark.parametrize(("stream", "shown", "expected"), [(Terminal, True, True), (Terminal, False, False),
                                                           (io.StringIO, True, False)])  # fmt: skip
def test_a_bar_is_shown_where_somebody_watches(monkeypatch, stream, shown, expected):
    monkeypatch.setattr(sys, "stderr", stream())
    for make in (progress_bar, passing_bar):
        with make(3, "counting", shown=shown) as bar:
            bar.update(3)
            assert bar.disable is not expected
    assert ("counting" in sys.stderr.getvalue()) is expected
