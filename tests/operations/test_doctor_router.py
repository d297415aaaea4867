"""What the doctor says of a router that runs elsewhere."""

from __future__ import annotations

from pathlib import Path

from llama_async_proxy.operations.doctor import Finding, Level, examine
from llama_async_proxy.settings import resolve
from support.fake_router import FakeRouter


async def engine_finding(directory: Path, url: str) -> Finding:
    given = {"engine": "router", "router_url": url, "data_dir": str(directory)}
    findings = await examine(resolve(command_line=given, environment={}, file={}, default_data_dir=directory))
    return next(finding for finding in findings if finding.subject == "engine")


async def test_a_router_that_answers_is_well(tmp_path: Path) -> None:
    async with FakeRouter("m1", has_events=True).running() as router:
        finding = await engine_finding(tmp_path, router.url)
    assert (finding.level, finding.found) == (Level.OK, f"a router at 127.0.0.1:{router.port}")


async def test_one_that_does_not_is_a_problem_with_advice(tmp_path: Path) -> None:
    finding = await engine_finding(tmp_path, FakeRouter(has_events=True).url)
    assert finding.level is Level.PROBLEM
    assert "--router-url" in finding.found


async def test_an_address_that_is_none_is_named(tmp_path: Path) -> None:
    finding = await engine_finding(tmp_path, "https://gpu.lan")
    assert (finding.level, "llama.routerUrl: must look like" in finding.found) == (Level.PROBLEM, True)
