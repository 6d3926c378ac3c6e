import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from service.control_groups import groups
from service.threads import Division, division, usable_processors


def system(root: Path, membership: str, files: Mapping[str, str]) -> Path:
    """A made-up system under ``root``; files by their path below /sys/fs/cgroup."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(membership)
    for name, content in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{content}\n")
    return root


@pytest.mark.parametrize("processors", range(1, 200))
def test_no_division_takes_more_processors_than_there_are_or_leaves_many_idle(processors: int) -> None:
    lanes, threads_per_call = division(processors)
    assert 1 <= lanes <= 8 and threads_per_call >= 1
    assert lanes + threads_per_call - 1 == processors  # the lanes' own threads, and those that they share
    if processors <= 8:
        assert (lanes, threads_per_call) == (processors, 1)


def test_beyond_eight_lanes_calls_get_more_threads() -> None:
    assert division(16) == Division(lanes=8, threads_per_call=9)
    assert division(9) == Division(lanes=8, threads_per_call=2)


def cfs(group: str, quota: str, period: str = "100000") -> dict[str, str]:
    return {f"{group}/cpu.cfs_quota_us": quota, f"{group}/cpu.cfs_period_us": period}


@pytest.mark.parametrize(
    ("membership", "files", "found"),
    [
        ("0::/\n", {}, 12),
        ("0::/\n", {"cpu.max": "max 100000"}, 12),
        ("0::/\n", {"cpu.max": "200000 100000"}, 2),  # a container: its own group is the top
        ("0::/\n", {"cpu.max": "250000 100000"}, 3),
        ("0::/\n", {"cpu.max": "10000 100000"}, 1),
        ("0::/\n", {"cpu.max": "6400000 100000"}, 12),
        ("0::/pods/pod1/c1\n", {"pods/pod1/c1/cpu.max": "max 100000", "pods/pod1/cpu.max": "300000 100000"}, 3),
        ("0::/pods/pod1/c1\n", {"pods/pod1/c1/cpu.max": "400000 100000", "pods/cpu.max": "500000 100000"}, 4),
        ("4:cpu,cpuacct:/docker/c1\n0::/\n", cfs("cpu/docker/c1", "200000"), 2),
        ("4:cpu,cpuacct:/docker/c1\n", cfs("cpu,cpuacct/docker/c1", "150000", "50000"), 3),
        ("4:cpu,cpuacct:/docker/c1\n", cfs("cpu", "200000"), 2),  # inside, the group's own path cannot be seen
        ("4:cpu:/a/b\n", cfs("cpu/a/b", "-1") | cfs("cpu/a", "500000"), 5),
        ("4:cpuset:/\n3:memory:/\n", cfs("cpu", "100000"), 12),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "100000"}, 12),  # without its period it says nothing
    ],
)
def test_the_containers_quota_is_the_least_of_its_groups_of_either_version(
    membership: str, files: dict[str, str], found: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(12), raising=False)
    assert usable_processors(system(tmp_path, membership, files)) == found


def test_where_no_affinity_is_known_all_processors_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert usable_processors(tmp_path) == os.cpu_count()


def test_the_affinity_counts_where_there_is_no_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert usable_processors(tmp_path) == 2


def test_groups_of_both_versions_are_found_and_those_around_them(tmp_path: Path) -> None:
    root = system(tmp_path, "4:memory:/a/b\n3:cpu:/x\n0::/c\n", {})
    top = root / "sys/fs/cgroup"
    assert list(groups("memory", root)) == [
        (1, top / "memory/a/b"),
        (1, top / "memory/a"),
        (1, top / "memory"),
        (2, top / "c"),
        (2, top),
    ]
    assert list(groups("cpu", tmp_path / "elsewhere")) == []
