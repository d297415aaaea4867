"""REST is built when its first request comes, once, and what does not need it starts without it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import aiohttp

from api.harness import house
from llama_async_proxy.api.rest.mount import RestMount
from support.asgi import serving


async def test_requests_that_come_while_rest_is_built_share_it(tmp_path: Path, model_files: Path) -> None:
    async with house(tmp_path, model_files) as at, serving(RestMount(lambda: at.context)) as port:

        async def status() -> int:
            async with at.http.get(f"http://127.0.0.1:{port}/api/health") as response:
                return response.status

        assert await asyncio.gather(*(status() for _ in range(5))) == [200] * 5


async def test_a_client_that_leaves_while_rest_is_built_takes_nothing_from_others(
    tmp_path: Path, model_files: Path
) -> None:
    async with house(tmp_path, model_files) as at, serving(RestMount(lambda: at.context)) as port:
        await leave_at_once(port)
        async with at.http.get(f"http://127.0.0.1:{port}/api/health") as response:
            assert response.status == 200


async def leave_at_once(port: int) -> None:
    async with aiohttp.ClientSession() as http:
        asking = asyncio.create_task(http.get(f"http://127.0.0.1:{port}/api/health"))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


def test_the_service_is_imported_without_what_only_rest_needs() -> None:
    program = "import sys, llama_async_proxy.app; print(*sys.modules)"
    loaded = set(subprocess.check_output([sys.executable, "-c", program], text=True).split())
    assert "llama_async_proxy.app" in loaded
    assert not {"fastapi", "alembic", "llama_async_proxy.api.rest.app"} & loaded
