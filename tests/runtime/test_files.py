import hashlib
import json

import pytest

from dogs_accel.runtime.files import (
    BusyError,
    is_unused,
    only_process_in,
    remove_partial,
    replacing,
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
