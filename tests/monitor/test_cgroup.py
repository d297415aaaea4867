from __future__ import annotations

from pathlib import Path

from llama_async_proxy.monitor.cgroup import Cgroup, MemoryLimit

GIB = 1 << 30


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def v2(limit: int | str, used: int, inactive_file: int = 0) -> dict[str, str]:
    return {
        "memory.max": f"{limit}\n",
        "memory.current": f"{used}\n",
        "memory.stat": f"anon 1\nfile 2\ninactive_file {inactive_file}\nactive_file 3\n",
    }


def under(directory: str, files: dict[str, str]) -> dict[str, str]:
    return {f"{directory}/{name}": text for name, text in files.items()}


def test_container_sees_its_own_limit_at_the_root_of_the_mount(tmp_path: Path) -> None:
    write(tmp_path, {"proc/self/cgroup": "0::/\n", **under("sys/fs/cgroup", v2(2 * GIB, GIB))})
    assert Cgroup(tmp_path).memory() == MemoryLimit(2 * GIB, GIB)


def test_page_cache_that_can_be_given_back_is_not_used_memory(tmp_path: Path) -> None:
    write(tmp_path, {"proc/self/cgroup": "0::/\n", **under("sys/fs/cgroup", v2(2 * GIB, GIB, GIB // 4))})
    assert Cgroup(tmp_path).memory() == MemoryLimit(2 * GIB, GIB * 3 // 4)


def test_unlimited_group_is_no_limit(tmp_path: Path) -> None:
    write(tmp_path, {"proc/self/cgroup": "0::/\n", **under("sys/fs/cgroup", v2("max", GIB))})
    assert Cgroup(tmp_path).memory() is None


def test_limit_of_an_ancestor_counts_when_it_is_tighter(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/system.slice/ours.service\n",
            **under("sys/fs/cgroup/system.slice", v2(GIB, GIB // 2)),
            **under("sys/fs/cgroup/system.slice/ours.service", v2(4 * GIB, GIB // 8)),
        },
    )
    assert Cgroup(tmp_path).memory() == MemoryLimit(GIB, GIB // 2)


def test_version_one_reads_the_memory_controller(tmp_path: Path) -> None:
    files = {
        "memory.limit_in_bytes": f"{GIB}\n",
        "memory.usage_in_bytes": f"{GIB // 2}\n",
        "memory.stat": f"inactive_file 7\ntotal_inactive_file {GIB // 4}\n",
    }
    # The path is the host's; in the container's mount only the root exists.
    listing = "5:cpu,cpuacct:/docker/0123\n4:memory:/docker/0123\n0::/docker/0123\n"
    write(tmp_path, {"proc/self/cgroup": listing, **under("sys/fs/cgroup/memory", files)})
    assert Cgroup(tmp_path).memory() == MemoryLimit(GIB, GIB // 4)


def test_machine_without_control_groups_has_no_limit(tmp_path: Path) -> None:
    assert Cgroup(tmp_path).memory() is None


def test_group_that_vanished_has_no_limit(tmp_path: Path) -> None:
    write(tmp_path, {"proc/self/cgroup": "0::/\n", **under("sys/fs/cgroup", v2(GIB, 1))})
    cgroup = Cgroup(tmp_path)
    (tmp_path / "sys/fs/cgroup/memory.current").unlink()
    assert cgroup.memory() is None


def test_path_outside_our_namespace_stays_inside_the_mount(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/../../elsewhere\n",
            **under("elsewhere", v2(1, 1)),
            **under("sys/fs/cgroup", v2(GIB, 5)),
        },
    )
    assert Cgroup(tmp_path).memory() == MemoryLimit(GIB, 5)
