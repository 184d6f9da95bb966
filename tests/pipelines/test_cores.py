"""How many cores a container with a share of them has."""

import os

import pytest

from dogs_accel.runtime.environment import describe_environment
from dogs_accel.runtime.threads import bound_threads
from pipelines import cores
from pipelines.cores import available_cores, cpu_quota, memory_limit
from pipelines.make import _memory_bytes


def write(folder, **contents):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


@pytest.mark.fault(
    "Machine and environment",
    "a container with a CPU quota (cgroup v1 or v2)",
    "no more threads than the quota gives time for",
)
@pytest.mark.parametrize(
    ("listed", "files", "expected"),
    [
        ("0::/\n", {"": {"cpu__max": "150000 100000"}}, 1.5),
        ("0::/\n", {"": {"cpu__max": "max 100000"}}, None),
        # The least of a group and of those around it.
        ("0::/a/b\n", {"a/b": {"cpu__max": "max 100000"}, "a": {"cpu__max": "50000 100000"}}, 0.5),
        # The path is the host's; the container sees its own group as the top.
        ("4:cpu,cpuacct:/docker/12\n0::/\n",
         {"cpu,cpuacct": {"cpu__cfs_quota_us": 300000, "cpu__cfs_period_us": 100000}}, 3),
        ("1:cpu:/job\n", {"cpu/job": {"cpu__cfs_quota_us": -1, "cpu__cfs_period_us": 100000}}, None),
        ("1:cpu:/job\n", {"cpu/job": {"cpu__cfs_quota_us": 25000, "cpu__cfs_period_us": 50000}}, 0.5),
        ("3:cpuset:/\n2:memory:/\n", {"": {"cpu__max": "1000 1000"}}, None),
        ("", {}, None),
    ],
)  # fmt: skip
def test_the_quota_of_both_versions_of_control_groups(tmp_path, listed, files, expected):
    (tmp_path / "own").write_text(listed)
    for folder, contents in files.items():
        write(tmp_path / "mounted" / folder, **contents)
    assert cpu_quota(tmp_path / "mounted", tmp_path / "own") == expected
    assert cpu_quota(tmp_path / "mounted", tmp_path / "absent") is None


@pytest.mark.fault(
    "Machine and environment",
    "a container with a memory limit (cgroup v1 or v2)",
    "stores and batches are measured against the limit, not the machine",
)
@pytest.mark.parametrize(
    ("listed", "files", "expected"),
    [
        ("0::/\n", {"": {"memory__max": 2**30}}, 2**30),
        ("0::/a/b\n", {"a/b": {"memory__max": "max"}, "a": {"memory__max": 5000}}, 5000),
        ("4:memory:/docker/12\n0::/\n", {"memory": {"memory__limit_in_bytes": 7000}}, 7000),
        ("4:memory:/\n", {"memory": {"memory__limit_in_bytes": 2**63 - 4096}}, None),
        ("2:cpu:/\n", {"": {"memory__max": 1000}}, None),
    ],
)
def test_the_memory_limit_of_both_versions_of_control_groups(tmp_path, monkeypatch, listed, files, expected):
    (tmp_path / "own").write_text(listed)
    for folder, contents in files.items():
        write(tmp_path / "mounted" / folder, **contents)
    assert memory_limit(tmp_path / "mounted", tmp_path / "own") == expected
    assert memory_limit(tmp_path / "mounted", tmp_path / "absent") is None
    monkeypatch.setattr("pipelines.make.memory_limit", lambda: expected)
    assert _memory_bytes() == (expected or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


@pytest.mark.parametrize(("quota", "expected"), [(None, 8), (0.2, 1), (1.5, 2), (4.0, 4), (64.0, 8)])
def test_cores_are_those_of_the_quota_rounded_up(monkeypatch, quota, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(cores, "cpu_quota", lambda: quota)
    assert available_cores() == expected


def test_torch_takes_as_many_threads_as_there_are_cores_time(monkeypatch):
    monkeypatch.delitem(__import__("sys").modules, "torch")
    monkeypatch.setattr("dogs_accel.runtime.threads.cpu_quota", lambda: 1.5)
    monkeypatch.setattr("dogs_accel.runtime.threads.available_cores", lambda: 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    environ = {}
    assert bound_threads(environ)
    assert environ == {"OMP_NUM_THREADS": "2"}
    assert not bound_threads(environ := {"OMP_NUM_THREADS": "7"})
    assert environ == {"OMP_NUM_THREADS": "7"}
    monkeypatch.setattr("dogs_accel.runtime.threads.cpu_quota", lambda: None)
    assert not bound_threads({})


def test_the_quota_stands_in_the_record_of_the_environment(monkeypatch):
    monkeypatch.setattr("dogs_accel.runtime.environment.cpu_quota", lambda: 1.5)
    assert describe_environment()["cpu_quota"] == 1.5
