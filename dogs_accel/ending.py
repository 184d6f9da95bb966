"""How a command ends: one line that says what happened, an exit code, and the traceback of what nobody expected."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import dogs_accel
from dogs_accel.runtime.arguments import describe_error, error_line, is_started_by_torchrun
from dogs_accel.runtime.files import ERROR_LOG, FullDiskError, is_disk_full
from dogs_accel.runtime.terminal import escaped, terminal_output

# Nothing here imports torch: a command may end before it is there.

TERMINATED, INTERRUPTED, EXPECTED, UNEXPECTED = 143, 130, 2, 1
"""Exit codes: by SIGTERM, by Ctrl-C, by what the user can put right, by what nobody expected or a check that fails."""

_APPENDS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
"""How a log is opened: others may write into the folder of temporary files, and put a link there."""


_AGAIN_AFTER_S = 0.01
"""How often it is looked whether an interruption that was dropped can come again."""


class CheckFailedError(Exception):
    """A command did its work, and what it checked does not hold."""


class TerminatedError(KeyboardInterrupt):
    """The process was told to end, which it does as at Ctrl-C."""


@dataclass
class Ending:
    """What a command says when it ends early; it fills this in as it goes on."""

    prog: str
    stopped: str = "stopped"
    """What is said when it is interrupted."""
    expected: tuple[type[Exception], ...] = (ValueError, OSError)
    """Errors that say themselves what the user can put right."""
    log_folder: Path | None = None
    """Where the traceback of an unexpected error goes if the folder is there; else into the temporary files."""
    remedy: Callable[[Exception], str] = lambda error: "make room and run it again" if is_disk_full(error) else ""
    """What is said after an error: where the finished part lies, and how to go on."""
    is_spokesman: bool = True
    """Of several processes that are interrupted together, whether this is the one that says so."""

    def say_interrupted(self, stop: KeyboardInterrupt) -> int:
        """Say that the command was stopped; returns the exit code."""
        if self.is_spokesman:
            _say(f"\n{self.stopped}\n")
        return TERMINATED if isinstance(stop, TerminatedError) else INTERRUPTED

    def say_failed(self, error: Exception) -> int:
        """Say in one line why the command ends; returns the exit code."""
        if isinstance(error, CheckFailedError):
            _say(f"{self.prog}: FAILED: {escaped(error)}\n")
            return UNEXPECTED
        if is_disk_full(error):
            _say(error_line(self.prog, _joined(self._describe_full_disk(error), self.remedy(error))))
            return EXPECTED
        if isinstance(error, self.expected):
            _say(error_line(self.prog, _joined(describe_error(error), self.remedy(error))))
            return EXPECTED
        if (text := _describe_lack_of_memory(error)) is not None:
            _say(error_line(self.prog, _joined(text, self.remedy(error))))
            return EXPECTED
        if (text := _describe_lost_worker(error)) is not None:
            _say(error_line(self.prog, _joined(text, self.remedy(error))))
            return EXPECTED
        first = next(iter(describe_error(error).strip().splitlines()), "")
        text = f"unexpected {type(error).__name__}{f': {first}' if first else ''}"
        _say(
            error_line(self.prog, _joined(text, self.remedy(error), write_traceback(self.log_folder, self.prog, error)))
        )
        return UNEXPECTED

    def _describe_full_disk(self, error: Exception) -> str:
        found: BaseException | None = error
        while found is not None:
            if isinstance(found, FullDiskError):
                return str(found)
            found = found.__cause__ or found.__context__
        if isinstance(error, ValueError):  # which says it in words of its own
            return str(error)
        named = getattr(error, "filename", None) or self.log_folder
        return f"no space left on the disk{'' if named is None else f' of {named}'}"


def write_traceback(folder: Path | None, title: str, error: Exception) -> str:
    """Append the traceback of an error to the log of a folder, or of the temporary files; says where it is."""
    text = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {title}\n{''.join(traceback.format_exception(error))}\n"
    own = [folder / ERROR_LOG] if folder is not None and folder.is_dir() else []
    for path in (*own, Path(tempfile.gettempdir()) / f"dogs-accel-{os.getuid()}-{ERROR_LOG}"):
        with suppress(OSError), os.fdopen(os.open(path, _APPENDS, 0o600), "ab") as file:
            file.write(text.encode("utf-8", "backslashreplace"))
            return f"the traceback is in {path}"
    return "its traceback could not be written anywhere"


def _joined(*parts: str) -> str:
    return "; ".join(filter(None, parts))


def _say(text: str) -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # what cannot be said does not change how it ends
            if stream is sys.stderr:
                stream.write(text)
            stream.flush()


def _describe_lack_of_memory(error: Exception) -> str | None:
    if not isinstance(error, MemoryError) and "torch" not in sys.modules:
        return None
    try:
        from dogs_accel.runtime.out_of_memory import describe_out_of_memory, is_out_of_memory
    except (ImportError, MemoryError):  # of torch, which may be why the command ends; there may be no memory for it
        return f"out of memory ({error})" if isinstance(error, MemoryError) else None
    return describe_out_of_memory(error) if is_out_of_memory(error) else None


def _describe_lost_worker(error: Exception) -> str | None:
    if "pipelines.torchloader" not in sys.modules:
        return None
    from pipelines.torchloader import describe_lost_worker

    return describe_lost_worker(error)


@contextmanager
def ending_in_a_line(prog: str) -> Iterator[Ending]:
    """Let whatever ends the block early be said in one line, with its exit code, as SystemExit.

    An interruption has 130, SIGTERM 143, what the user can put right 2. What nobody expected has 1, and its traceback
    goes into a log file that the line names. Output passes through `terminal_output`.
    """
    ending = Ending(prog, is_spokesman=os.environ.get("RANK", "0") == "0")
    with ExitStack() as stack:
        stack.enter_context(terminal_output())
        try:
            # Also what comes while the handlers are set or taken back is an end in a line.
            with _sigterm_as_interruption(), _no_interruption_ignored():
                if signal.getsignal(signal.SIGINT) is dogs_accel.end_early:  # which has ended the process until here
                    signal.signal(signal.SIGINT, signal.default_int_handler)
                _check_current_folder()
                yield ending
                if sys.stdout is not None:
                    sys.stdout.flush()
        except KeyboardInterrupt as stop:
            code = ending.say_interrupted(stop)
        except Exception as error:
            code = ending.say_failed(error)
        else:
            return
    raise SystemExit(code)


def _check_current_folder() -> None:
    """Raise ValueError where the folder that the command was started in is gone: torch ends the process then."""
    try:
        os.getcwd()  # noqa: PTH109  (of a Path it is no cheaper)
    except FileNotFoundError as error:
        raise ValueError("the current folder is gone, expected one that is there; cd to another") from error


@contextmanager
def _no_interruption_ignored() -> Iterator[None]:
    """Let an interruption come again that Python has dropped, as it does around a fork and where it frees objects."""
    before = sys.unraisablehook

    def hook(dropped: Any) -> None:
        if not isinstance(dropped.exc_value, KeyboardInterrupt):
            before(dropped)
            return
        number = signal.SIGTERM if isinstance(dropped.exc_value, TerminatedError) else signal.SIGINT
        threading.Thread(target=_interrupt_again, args=(number, hook.__code__), daemon=True).start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def _interrupt_again(number: int, hook: CodeType) -> None:
    """Send a signal to the main thread once it has left the hook, in which it would be dropped again and for good."""
    main = threading.main_thread().ident
    assert main is not None  # it has been started
    while any(frame.f_code is hook for frame, _ in traceback.walk_stack(sys._current_frames().get(main))):
        time.sleep(_AGAIN_AFTER_S)
    signal.pthread_kill(main, number)


@contextmanager
def _sigterm_as_interruption() -> Iterator[None]:
    """Let SIGTERM end this process as Ctrl-C does, unless somebody handles it otherwise.

    Of several processes torchrun ends those that are left when one has failed, and they must not take their time.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or is_started_by_torchrun()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return
    own = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != own:  # a worker, which has the handler by being forked
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        raise TerminatedError

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
