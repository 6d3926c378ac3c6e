import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from service.errors import InvalidSettings, MemoryFull
from service.memory import MemoryCeiling, container_limit_bytes
from service.metrics import Metrics

GIB, MIB = 1 << 30, 1 << 20


def system(root: Path, membership: str = "", resident_bytes: int = 0, limits: Mapping[str, str] | None = None) -> Path:
    """A made-up system under ``root``; limits by their path below /sys/fs/cgroup."""
    process = root / "proc" / "self"
    process.mkdir(parents=True)
    (process / "cgroup").write_text(membership)
    (process / "statm").write_text(f"99999 {resident_bytes // os.sysconf('SC_PAGE_SIZE')} 1 1 0 1 0\n")
    for name, content in (limits or {}).items():
        folder = root / "sys/fs/cgroup" / name
        folder.mkdir(parents=True, exist_ok=True)
        for file in ("memory.max", "memory.limit_in_bytes"):
            (folder / file).write_text(f"{content}\n")
    return root


@pytest.mark.parametrize(
    ("membership", "limits", "found"),
    [
        ("0::/\n", {"": "1073741824"}, GIB),  # a container: its own group is the top
        ("0::/\n", {"": "max"}, 0),
        ("0::/kubepods/pod1/c1\n", {"kubepods/pod1/c1": "max", "kubepods/pod1": "1073741824", "kubepods": "9"}, 9),
        ("0::/kubepods/pod1/c1\n", {"kubepods/pod1/c1": str(GIB), "kubepods": "max"}, GIB),
        ("3:cpu,cpuacct:/a\n4:memory:/docker/c1\n0::/\n", {"memory/docker/c1": str(GIB), "cpu/a": "5"}, GIB),
        ("4:memory:/docker/c1\n", {"memory": str(GIB)}, GIB),  # inside, the group's own path cannot be seen
        ("4:memory:/\n", {"memory": "9223372036854771712"}, 0),
        ("4:pids:/\n0::/\n", {}, 0),
    ],
)
def test_the_containers_limit_is_the_least_of_its_groups_of_either_version(
    membership: str, limits: dict[str, str], found: int, tmp_path: Path
) -> None:
    assert container_limit_bytes(system(tmp_path, membership, limits=limits)) == found


def test_a_system_without_control_groups_has_no_limit(tmp_path: Path, metrics: Metrics) -> None:
    assert container_limit_bytes(tmp_path) == 0
    MemoryCeiling(0, metrics, tmp_path).check(1)


def test_the_ceiling_is_what_is_set_or_nine_tenths_of_the_containers(tmp_path: Path, metrics: Metrics) -> None:
    root = system(tmp_path, "0::/\n", limits={"": str(1000 * MIB)})
    assert MemoryCeiling(0, metrics, root).limit_bytes == 900 * MIB
    assert MemoryCeiling(123 * MIB, metrics, root).limit_bytes == 123 * MIB
    assert metrics.registry.get_sample_value("interlinear_memory_limit_bytes") == 123 * MIB


def test_a_limit_that_nobody_could_keep_is_refused(tmp_path: Path, metrics: Metrics) -> None:
    with pytest.raises(InvalidSettings, match="INTERLINEAR_MEMORY_LIMIT_BYTES=5: .* leave the setting at 0"):
        MemoryCeiling(5, metrics, tmp_path)


def test_work_is_refused_at_the_ceiling_and_taken_again_below_it(
    tmp_path: Path, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = system(tmp_path, resident_bytes=99 * MIB)
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    ceiling = MemoryCeiling(100 * MIB, metrics, root)
    ceiling.check(1)
    (root / "proc/self/statm").write_text(f"9 {101 * MIB // os.sysconf('SC_PAGE_SIZE')} 1\n")
    ceiling.check(1)  # read a moment ago
    now += 0.11
    with pytest.raises(MemoryFull, match="has 101 MiB of memory, and takes nothing new above 100 MiB") as caught:
        ceiling.check(1)
    assert caught.value.retry_after_seconds == 1.0
    (root / "proc/self/statm").write_text("9 1 1\n")
    now += 0.11
    ceiling.check(1)


def test_a_process_that_does_nothing_takes_work_at_any_size_as_refusing_would_not_shrink_it(
    tmp_path: Path, metrics: Metrics
) -> None:
    ceiling = MemoryCeiling(100 * MIB, metrics, system(tmp_path, resident_bytes=101 * MIB))
    ceiling.check(0)
    with pytest.raises(MemoryFull):
        ceiling.check(1)
    with ceiling.unsent(1), pytest.raises(MemoryFull):
        ceiling.check(0)
    ceiling.check(0)


def test_the_size_of_this_process_is_about_what_it_holds(metrics: Metrics) -> None:
    if not Path("/proc/self/statm").is_file():
        pytest.skip("this system does not tell the size of a process")
    small = MemoryCeiling(10 * MIB, metrics)
    with pytest.raises(MemoryFull):
        small.check(1)
    MemoryCeiling(1 << 50, metrics).check(1)


def test_replies_that_nobody_reads_hold_up_new_work(tmp_path: Path, metrics: Metrics) -> None:
    ceiling = MemoryCeiling(0, metrics, tmp_path)
    with ceiling.unsent(255 * MIB):
        ceiling.check(1)
        with pytest.raises(RuntimeError), ceiling.unsent(1 * MIB):
            assert metrics.registry.get_sample_value("interlinear_unsent_reply_bytes") == 256 * MIB
            with pytest.raises(MemoryFull, match="256 MiB of replies wait for callers who do not read them"):
                ceiling.check(1)
            raise RuntimeError("the connection broke")
        ceiling.check(1)
    assert ceiling.unsent_bytes == 0
