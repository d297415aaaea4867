from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from llama_async_proxy.errors import StoreUnavailable
from llama_async_proxy.store.store import Store
from store.builders import line, record, sample, scanned
from store.faults import fill, immutable, tiny_disk


def rows() -> int:
    return 1000


async def test_stored_data_is_there_after_reopening(path: Path) -> None:
    async with Store.open(path, log_max_rows=rows) as store:
        model = await store.models.add(scanned("/m/a.gguf"))
        store.models.touch(model.id, 10_000)
        await store.preferences.merge({"theme": "dark"})
        # Not yet written when the block ends.
        store.metrics.append(sample(1000))
        store.logs.append(line())
        store.requests.append([record()])
    async with Store.open(path, log_max_rows=rows) as store:
        assert store.models.get(model.id).last_used_at_ms == 10_000
        assert await store.preferences.get_all() == {"theme": "dark"}
        assert await store.metrics.recent() == (sample(1000),)
        assert [entry.message for entry in await store.logs.query()] == ["hello"]
        assert await store.requests.recent() == (record(),)


async def test_leaves_one_database_file_that_only_its_owner_can_reach(path: Path) -> None:
    async with Store.open(path, log_max_rows=rows) as store:
        store.logs.append(line())
    assert sorted(p.name for p in path.parent.iterdir()) == ["service.db", "service.lock"]
    if os.name != "nt":
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_second_store_in_the_directory_is_refused_and_the_first_unharmed(store: Store, path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=rf"in use by another service \(pid {os.getpid()} "):
        async with Store.open(path, log_max_rows=rows):
            pass
    await store.check()


async def test_a_failed_open_releases_the_directory(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database" * 100)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="is no database"):
            async with Store.open(path, log_max_rows=rows):
                pass
    path.unlink()
    async with Store.open(path, log_max_rows=rows) as store:
        await store.check()


async def test_a_data_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("")
    with pytest.raises(StoreUnavailable, match=r"Cannot create the data directory .*--data-dir") as raised:
        async with Store.open(tmp_path / "occupied" / "data" / "service.db", log_max_rows=rows):
            pass
    assert str(tmp_path / "occupied" / "data") in raised.value.message


async def test_a_read_only_data_directory_is_named(path: Path) -> None:
    path.parent.mkdir()
    with (
        immutable(path.parent),
        pytest.raises(StoreUnavailable, match=r"Cannot write to the data directory .*--data-dir"),
    ):
        async with Store.open(path, log_max_rows=rows):
            pass


async def test_check_reports_a_full_disk_and_the_recovery(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk") as disk:
        async with Store.open(disk / "service.db", log_max_rows=rows) as store:
            await store.check()
            ballast = fill(disk)
            for _ in range(100):
                store.logs.append(line("x" * 1000))
            with pytest.raises(StoreUnavailable, match="full"):
                await store.flush()
            with pytest.raises(StoreUnavailable, match="full"):
                await store.check()
            with pytest.raises(StoreUnavailable, match="full"):
                await store.preferences.merge({"big": "x" * 100_000})
            assert await store.preferences.get_all() == {}, "reading goes on"
            ballast.unlink()
            await store.flush()
            await store.check()
            assert len(await store.logs.query(limit=200)) == 100


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors the Linux way")
async def test_open_and_close_leave_no_descriptor(path: Path) -> None:
    async def once() -> None:
        async with Store.open(path, log_max_rows=rows) as store:
            await store.check()

    await once()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        await once()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
