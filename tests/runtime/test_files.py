import errno
import fcntl
import hashlib
import json
import os
import tempfile
from contextlib import suppress

import pytest

from dogs_accel.runtime import files
from dogs_accel.runtime.files import (
    BusyError,
    FullDiskError,
    UnwritableError,
    is_unused,
    only_process_in,
    remove_partial,
    replacing,
    replacing_folder,
    temporary_folder,
    working_in,
    write_json,
    write_manifest,
)


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"a": 1})
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text(f"half {1 / 0}")
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.fault(
    "Signals and processes",
    "a process killed while it writes",
    "its half-written file never has the final name, and is removed later",
)
def test_what_a_killed_process_was_writing_can_be_removed(tmp_path):
    path = tmp_path / "runs" / "result.json"
    write_json(path, {"a": 1})
    writing = replacing(path)
    writing.__enter__().write_text("half")
    assert len(list(path.parent.iterdir())) == 2
    remove_partial(tmp_path)
    assert [p.name for p in path.parent.iterdir()] == ["result.json"]


@pytest.mark.fault(
    "Signals and processes", "killed while it unpacks or draws a set", "what it left goes at the next start"
)
def test_a_folder_takes_its_name_when_it_is_whole_and_abandoned_ones_go(tmp_path):
    folder = tmp_path / "data" / "Images"
    with suppress(ZeroDivisionError), replacing_folder(folder) as coming:
        coming.mkdir()
        (coming / "a.jpg").write_text(f"half {1 / 0}")
    assert list(folder.parent.iterdir()) == []
    (folder.parent / ".partial-Images-killed" / "Images").mkdir(parents=True)
    (folder.parent / ".partial-a-killed.csv").write_text("half")
    files._remove_abandoned.cache_clear()  # as another process has it
    with replacing_folder(folder) as at_work:
        at_work.mkdir()
        with replacing_folder(folder) as coming:  # another process would be the same
            (coming / "n1").mkdir(parents=True)
        (at_work / "late").write_text("")
    assert [path.name for path in folder.parent.iterdir()] == ["Images"]
    assert [path.name for path in folder.iterdir()] == ["n1"]


def test_a_full_disk_of_temporary_files_is_named_by_their_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def use(error):
        with temporary_folder("stores-", "TMPDIR=DIR puts it elsewhere") as folder:
            (folder / "a").write_text("")
            raise error(folder)

    def full(folder):
        error = ValueError(f"store {folder}: full")
        error.__cause__ = OSError(28, "No space left on device")
        return error

    with pytest.raises(FullDiskError, match=f"^{tmp_path}: no space left .* temporary files, TMPDIR=DIR puts it"):
        use(full)
    with pytest.raises(UnwritableError, match=f"^{tmp_path} cannot be written: Read-only file system; TMPDIR=DIR"):
        use(lambda folder: OSError(30, "Read-only file system", str(folder / "b")))
    with pytest.raises(OSError, match="Permission denied"):
        use(lambda folder: OSError(13, "Permission denied", "photo.jpg"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("Disk", "--out on a fresh volume (lost+found) or with a .DS_Store", "accepted as empty")
def test_a_folder_is_unused_while_it_holds_nothing_of_anybody(tmp_path):
    folder = tmp_path / "new"
    assert is_unused(folder)
    folder.mkdir()
    replacing(folder / "config.json").__enter__()
    assert is_unused(folder)
    (folder / "lost+found").mkdir()
    (folder / ".DS_Store").write_bytes(b"\0")
    assert is_unused(folder)
    (folder / "thesis.txt").write_text("mine")
    assert not is_unused(folder)
    assert not is_unused(folder / "thesis.txt")


@pytest.mark.fault("Signals and processes", "two commands in one folder of results", "the second is refused by name")
def test_two_processes_do_not_work_in_one_folder(tmp_path):
    with (
        only_process_in(tmp_path),
        pytest.raises(BusyError, match=r"out: another process works in .*, expected none"),
        only_process_in(tmp_path),
    ):
        pass
    with only_process_in(tmp_path):
        pass


def test_a_folder_is_kept_for_one_process_where_only_files_open_for_writing_are_locked(tmp_path, monkeypatch):
    system = fcntl.flock

    def flock(handle, operation):  # as NFS has it
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return system(handle, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    test_two_processes_do_not_work_in_one_folder(tmp_path)
    assert not list(tmp_path.iterdir())
    write_json(tmp_path / "a.json", {})
    with only_process_in(tmp_path / "a"):
        assert is_unused(tmp_path / "a")  # also where a process was killed and has left its lock
        assert json.loads(write_manifest(tmp_path / "a").read_text())["files"] == {}
    assert not is_unused(tmp_path / "a")


def test_the_lock_of_a_folder_that_has_taken_the_place_of_another_stays(tmp_path):
    with only_process_in(tmp_path / "run"):
        (tmp_path / "run").rename(tmp_path / "moved")
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / ".lock").touch()
    assert (tmp_path / "run" / ".lock").exists()


def test_a_lock_that_another_user_has_left_keeps_nobody_out(tmp_path, monkeypatch):
    (tmp_path / ".lock").touch()
    system = os.open

    def refusing(path, flags, *mode, **more):
        if flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return system(path, flags, *mode, **more)

    monkeypatch.setattr(os, "open", refusing)
    with only_process_in(tmp_path), pytest.raises(BusyError), only_process_in(tmp_path):
        pass
    with pytest.raises(UnwritableError), only_process_in(tmp_path / "new"):
        pass


@pytest.mark.parametrize("number", [errno.EIO, errno.EFBIG, errno.ESTALE])
def test_a_write_that_fails_names_the_file_of_which_the_system_says_nothing(tmp_path, number):
    def fail():
        raise OSError(number, os.strerror(number))

    words = rf"^{tmp_path / 'a'}\.json cannot be written: {os.strerror(number)}$"
    with pytest.raises(UnwritableError, match=words), replacing(tmp_path / "a.json"):
        fail()
    assert not list(tmp_path.iterdir())


def test_who_waited_for_a_folder_does_not_take_the_lock_that_was_removed(tmp_path, monkeypatch):
    system, opened = files.lock, []

    def lock(handle, *, wait):
        opened.append(handle)
        if len(opened) == 1:  # the process before has ended meanwhile, and a third one has come
            (tmp_path / ".lock").unlink()
            (tmp_path / ".lock").touch()
        return system(handle, wait=wait)

    monkeypatch.setattr(files, "lock", lock)
    with only_process_in(tmp_path, wait=True):
        assert len(opened) == 2
        assert os.path.samestat(os.fstat(opened[1]), (tmp_path / ".lock").stat())
    assert not list(tmp_path.iterdir())


def test_a_folder_that_nothing_was_written_to_goes(tmp_path):
    with working_in(tmp_path / "new"):
        assert (tmp_path / "new").is_dir()
    with working_in(tmp_path / "kept"):
        (tmp_path / "kept" / "a").touch()
    (tmp_path / "old").mkdir()
    with working_in(tmp_path / "old"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "old"]


def test_a_result_can_be_read_by_whoever_reads_the_folder(tmp_path):
    ordinary = tmp_path / "ordinary"
    ordinary.write_text("x")
    assert write_json(tmp_path / "ours.json", {}).stat().st_mode == ordinary.stat().st_mode


def test_manifest_lists_every_file_with_its_checksum(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.txt").write_bytes(b"one")
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "log").write_bytes(b"still growing")
    write_manifest(tmp_path, leave_out=("wandb",))
    files = json.loads(write_manifest(tmp_path, leave_out=("wandb",)).read_text())["files"]
    assert files == {"a/one.txt": {"bytes": 3, "sha256": hashlib.sha256(b"one").hexdigest()}}
