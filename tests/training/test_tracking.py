"""Real W&B, offline: what is written to disk is what was logged."""

import os
import shutil
import socket
import time

import pytest
import wandb

from dogs_accel.runtime import files
from dogs_accel.training.tracking import JOB_TYPE, TrackedRun, TrackingError, check_tracking


def tracked(folder, mode, **more):
    return TrackedRun(
        name="resnet50_full",
        display_name="ResNet-50, full",
        mode=mode,
        folder=folder,
        group="flowers",
        config={"batch_size": 32, "seed": 42},
        **more,
    )


def run(folder, mode):
    with tracked(folder, mode) as one:
        for step in (1, 2):
            one.log({"val/acc": step / 10, "trainer/lr": 1e-4}, step=step)
        one.summarise({"test/accuracy": 0.75})
    return one


class FakeRun:
    id, entity, url, summary = "1", None, None, {}

    def log(self, *_, **__):
        pass

    finish = log


FAKE = FakeRun()


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_what_is_recorded_of_a_run(tmp_path, mode):
    record = run(tmp_path / "wandb", mode).as_record()
    assert (record["group"], record["job_type"]) == ("flowers", JOB_TYPE) == ("flowers", "train")
    assert record["state"] == "finished"
    assert record["config"]["batch_size"] == 32
    assert (record["summary"]["val/acc"], record["summary"]["test/accuracy"]) == (0.2, 0.75)
    assert record["created_at"] <= record["updated_at"]


def test_offline_writes_a_real_run(tmp_path):
    one = run(tmp_path / "wandb", "offline")
    [folder] = (tmp_path / "wandb").rglob(f"offline-run-*-{one.run_id}")
    [log] = folder.glob("run-*.wandb")
    expected = {b"ResNet-50, full", b"flowers", b"test/accuracy", b"val/acc"}
    until = time.monotonic() + 20  # on a busy machine W&B's service writes on after the run has finished
    while time.monotonic() < until and not all(word in log.read_bytes() for word in expected):
        time.sleep(0.1)
    assert [word for word in expected if word not in log.read_bytes()] == []


@pytest.mark.fault(
    "Machine and environment", "W&B offline, whose client reports errors of its own", "it is told not to, unless you do"
)
@pytest.mark.parametrize(("said", "expected"), [(None, "false"), ("true", "true")])
def test_offline_w_and_b_reports_no_errors_of_its_own_unless_told_to(tmp_path, monkeypatch, said, expected):
    seen = []
    monkeypatch.setenv("WANDB_ERROR_REPORTING", said or "")
    if said is None:
        monkeypatch.delenv("WANDB_ERROR_REPORTING")
    monkeypatch.setattr("wandb.init", lambda **_: seen.append(os.environ.get("WANDB_ERROR_REPORTING")) or FAKE)
    for mode in ("offline", "disabled", "online"):
        run(tmp_path, mode)
        if mode == "disabled" and said is None:
            monkeypatch.delenv("WANDB_ERROR_REPORTING")
    assert seen == [expected, said]


def test_disabled_writes_nothing(tmp_path):
    run(tmp_path / "wandb", "disabled")
    assert not (tmp_path / "wandb").exists()


def test_a_failed_run_says_so(tmp_path):
    one = tracked(tmp_path, "disabled")
    with pytest.raises(RuntimeError), one:
        raise RuntimeError
    assert one.as_record()["state"] == "failed"


def test_a_run_that_goes_on_replaces_what_it_left_behind(tmp_path):
    first = run(tmp_path, "offline")
    [left] = (tmp_path / "wandb").glob(f"offline-run-*-{first.run_id}")
    time.sleep(1.1)  # W&B names its folders by the second
    with tracked(tmp_path, "offline", run_id=first.run_id, created_at=first.created_at, resumes=True) as again:
        again.log({"val/acc": 0.5}, step=1)
    [there] = (tmp_path / "wandb").glob(f"offline-run-*-{first.run_id}")
    assert there != left
    assert again.as_record()["created_at"] == first.created_at


@pytest.mark.fault(
    "Machine and environment",
    "WANDB_RUN_ID or WANDB_SWEEP_ID in the environment",
    "every run has an id of its own, and the tables have the same ids",
)
def test_variables_of_one_run_do_not_name_all_of_them(tmp_path, monkeypatch):
    """As in the shell of a sweep's agent."""
    for name, value in {"WANDB_RUN_ID": "same", "WANDB_SWEEP_ID": "sweep", "WANDB_MODE": "disabled"}.items():
        monkeypatch.setenv(name, value)
    first, second = (run(tmp_path, "offline") for _ in range(2))
    for one in (first, second):
        assert len(list((tmp_path / "wandb").glob(f"offline-run-*-{one.as_record()['run_id']}"))) == 1
    assert len({first.run_id, second.run_id, "same"}) == 3
    assert os.environ["WANDB_RUN_ID"] == "same"


@pytest.mark.fault(
    "Machine and environment", "W&B that cannot start or fails on the way", "training goes on, with one line"
)
@pytest.mark.parametrize("when", ["start", "log"])
def test_a_run_goes_on_without_a_tracker_that_fails_and_says_so(tmp_path, monkeypatch, caplog, when):
    def fail(*_, **__):
        raise BrokenPipeError(32, "Broken pipe")

    class Failing:
        id, entity, log = "1", None, fail

    monkeypatch.setattr("wandb.init", fail if when == "start" else lambda **_: Failing())
    record = run(tmp_path, "offline").as_record()
    assert (record["state"], record["summary"]["test/accuracy"]) == ("finished", 0.75)
    assert [record.getMessage() for record in caplog.records] == [
        "wandb: ResNet-50, full is not tracked from here on ([Errno 32] Broken pipe)"
    ]


@pytest.mark.fault(
    "Machine and environment",
    "W&B online where nobody is logged in",
    "one line before anything else, with the flag that needs no account",
)
@pytest.mark.parametrize("logged_in", [False, None])
def test_online_is_checked_before_anything_else(monkeypatch, logged_in):
    def login():
        if logged_in is None:
            raise wandb.errors.UsageError("api_key not configured (no-tty).\ncall wandb.login(key=[your_api_key])")
        return logged_in

    check_tracking("offline")
    monkeypatch.setattr("wandb.login", login)
    environment = {"WANDB_BASE_URL": "http://127.0.0.1:1"}
    with pytest.raises(TrackingError, match=r"127\.0\.0\.1 does not answer \(.*refused\) \(--wandb offline needs no"):
        check_tracking("online", environment)
    with socket.create_server(("127.0.0.1", 0)) as server:
        environment = {"WANDB_BASE_URL": f"http://127.0.0.1:{server.getsockname()[1]}"}
        with pytest.raises(TrackingError, match=r"^wandb: .* \(--wandb offline needs no account\)$") as caught:
            check_tracking("online", environment)
    assert "\n" not in str(caught.value)
    assert ("api_key not configured" in str(caught.value)) is (logged_in is None)


@pytest.mark.fault("Disk", "W&B's folder removed while a run goes on", "training goes on, with one line")
def test_a_run_that_loses_its_folder_says_so(tmp_path, caplog):
    with tracked(tmp_path, "offline") as one:
        one.log({"val/acc": 0.5}, step=1)
        shutil.rmtree(tmp_path / "wandb")
        one.log({"val/acc": 0.6}, step=2)
    assert (one.state, one.summary["val/acc"]) == ("finished", 0.6)
    assert "wandb: the folder of ResNet-50, full is gone, and what was logged with it" in caplog.messages


@pytest.mark.fault(
    "Disk", "the disk of W&B's folder is full, which its service does not say", "the run goes on and says so"
)
def test_a_full_disk_that_the_tracker_does_not_notice_is_said_once(tmp_path, caplog, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage._replace(free=0))
    record = run(tmp_path, "offline").as_record()
    assert (record["state"], record["summary"]["test/accuracy"]) == ("finished", 0.75)
    said = "wandb: the disk is full, so what was logged of ResNet-50, full may lack its end"
    assert caplog.messages.count(said) == 1
