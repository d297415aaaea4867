"""The engine's contract with llama.cpp itself: the llama-server binary and the built-in worker."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec.structs import replace

from llama_async_proxy.engines.discovery import Launcher, binary_launcher, embedded_launcher
from llama_async_proxy.errors import DeadlineExceeded, LoadFailed
from llama_async_proxy.records.engine import EngineEventType
from llama_async_proxy.records.logs import LogLevel
from llama_async_proxy.records.models import ModelKind
from llama_async_proxy.records.options import OptionValue
from llama_async_proxy.records.runtime import LaunchSpec, ModelRuntime, ModelStatus
from support.rig import QUICK, Rig, children_of_this_process, get, is_alive

pytestmark = pytest.mark.engine

OWNER = Path(__file__).parents[1] / "support" / "owner.py"
LOADING, READY, FAILED = ModelStatus.LOADING, ModelStatus.READY, ModelStatus.FAILED
STOPPING, UNLOADED = ModelStatus.STOPPING, ModelStatus.UNLOADED
GRACE_S = 20.0
"""Grace period so long that a process which ends well before was not killed."""


@pytest.fixture(params=["llama-server", "embedded"])
def launcher(request: pytest.FixtureRequest) -> Launcher:
    if request.param == "embedded":
        return embedded_launcher()
    path: Path = request.getfixturevalue("llama_server")
    return binary_launcher(path)


@pytest_asyncio.fixture
async def rig(launcher: Launcher) -> AsyncIterator[Rig]:
    before = children_of_this_process()
    async with Rig(launcher).running() as running:
        yield running
    assert children_of_this_process() <= before


@pytest.fixture
def endless_model(tmp_path: Path) -> Path:
    """Model whose load never ends: a pipe without a writer."""
    path = tmp_path / "endless.gguf"
    os.mkfifo(path)
    return path


def spec(path: Path, kind: ModelKind = ModelKind.CHAT, timeout_s: float = 30.0, **options: OptionValue) -> LaunchSpec:
    named = {key.replace("_", "-"): value for key, value in options.items()}
    return LaunchSpec(1, path.stem, str(path), kind, named, load_timeout_s=timeout_s)


async def post(runtime: ModelRuntime, path: str, body: object, *, with_key: bool = True) -> object:
    assert runtime.endpoint is not None
    url = f"http://127.0.0.1:{runtime.endpoint.port}{path}"
    key = {"Authorization": f"Bearer {runtime.endpoint.api_key}"} if with_key else {}
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json", **key})

    def fetch() -> object:
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.load(response)
        except urllib.error.HTTPError as exc:
            return json.load(exc)

    return await asyncio.to_thread(fetch)


async def test_a_chat_model_loads_answers_and_unloads(launcher: Launcher, model_files: Path) -> None:
    async with Rig(launcher, replace(QUICK, stop_grace_s=GRACE_S)).running() as rig:
        await _answers_and_unloads(rig, model_files)


async def _answers_and_unloads(rig: Rig, model_files: Path) -> None:
    runtime = await rig.engine.load(spec(model_files / "chat.gguf", ctx_size=1024, parallel=2))
    assert (runtime.context_size, runtime.slots) == (512, 2)
    assert (runtime.rss_bytes or 0) > 10 << 20
    answer = await post(runtime, "/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]})
    assert isinstance(answer, dict)
    assert answer["model"] == "chat"
    assert answer["choices"][0]["message"]["content"]
    began = time.monotonic()
    await rig.engine.unload(1)
    assert time.monotonic() - began < GRACE_S / 2, "an idle model ends by itself, without SIGKILL"
    await rig.settle()
    assert rig.statuses() == [LOADING, READY, STOPPING, UNLOADED]


async def test_load_progress_and_log_levels_come_from_the_real_output(rig: Rig, model_files: Path) -> None:
    await rig.engine.load(spec(model_files / "chat.gguf"))
    await rig.settle()
    stages = {p.stage for e in rig.events if (p := getattr(getattr(e, "runtime", None), "progress", None))}
    assert stages == {"starting", "text_model"}
    assert any("loading model" in line.message and line.level is LogLevel.INFO for line in rig.lines)
    assert not [line for line in rig.lines if line.message.startswith("0.")], "an unknown log format"
    assert {line.source for line in rig.lines} == {"model:chat"}


async def test_a_model_refuses_requests_without_its_key(rig: Rig, model_files: Path) -> None:
    runtime = await rig.engine.load(spec(model_files / "chat.gguf"))
    answer = await post(runtime, "/completion", {"prompt": "a", "n_predict": 1}, with_key=False)
    assert isinstance(answer, dict)
    assert answer["error"]["code"] == 401
    assert runtime.endpoint is not None
    assert runtime.endpoint.api_key is not None
    assert runtime.endpoint.api_key not in repr(runtime)


async def test_no_web_page_may_read_the_answers(rig: Rig, model_files: Path) -> None:
    runtime = await rig.engine.load(spec(model_files / "chat.gguf"))
    assert runtime.endpoint is not None
    url = f"http://127.0.0.1:{runtime.endpoint.port}/health"
    request = urllib.request.Request(url, headers={"Origin": "http://evil.example"})
    with await asyncio.to_thread(urllib.request.urlopen, request, timeout=10) as response:
        assert response.headers["Access-Control-Allow-Origin"] == "http://127.0.0.1"


async def test_an_embedding_model_embeds(rig: Rig, model_files: Path) -> None:
    runtime = await rig.engine.load(spec(model_files / "embed.gguf", ModelKind.EMBEDDING))
    answer = await post(runtime, "/v1/embeddings", {"input": "hello"})
    assert isinstance(answer, dict)
    assert len(answer["data"][0]["embedding"]) == 64


async def test_a_rerank_model_ranks(rig: Rig, model_files: Path) -> None:
    runtime = await rig.engine.load(spec(model_files / "rerank.gguf", ModelKind.RERANK))
    answer = await post(runtime, "/v1/rerank", {"query": "a", "documents": ["b", "c"]})
    assert isinstance(answer, dict)
    assert len(answer["results"]) == 2


async def test_two_callers_share_one_process(rig: Rig, model_files: Path) -> None:
    first, second = await asyncio.gather(*(rig.engine.load(spec(model_files / "slow.gguf")) for _ in range(2)))
    assert first.pid == second.pid
    assert len(rig.engine.runtimes()) == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"not a model at all", "invalid magic characters"), (b"", "failed to read magic"), (None, "No such file")],
)
async def test_a_corrupt_file_fails_with_the_engines_reason(
    rig: Rig, tmp_path: Path, content: bytes | None, says: str
) -> None:
    path = tmp_path / "bad.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LoadFailed) as caught:
        await rig.engine.load(spec(path))
    assert says in caught.value.reason
    assert caught.value.exit_code == 1
    assert any(says in line for line in caught.value.log_tail)
    assert rig.engine.runtime(1).status is FAILED


async def test_a_file_cut_off_in_its_tensors_fails_with_the_engines_reason(
    rig: Rig, model_files: Path, tmp_path: Path
) -> None:
    path = tmp_path / "cut.gguf"
    whole = (model_files / "chat.gguf").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LoadFailed, match="not within the file bounds"):
        await rig.engine.load(spec(path))


async def test_a_wrong_option_is_named(rig: Rig, model_files: Path) -> None:
    with pytest.raises(LoadFailed, match="invalid argument: --no-such-option"):
        await rig.engine.load(spec(model_files / "chat.gguf", no_such_option=True))


async def test_a_model_restarts_after_kill_minus_9(rig: Rig, model_files: Path) -> None:
    first = await rig.engine.load(spec(model_files / "chat.gguf"))
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    await rig.until(lambda r: r.engine.runtime(1).status is READY and r.engine.runtime(1).pid != first.pid)
    assert await get(rig.engine.runtime(1), "/health") == {"status": "ok"}
    await rig.settle()
    assert rig.engine_events() == [EngineEventType.STARTED, EngineEventType.CLOSED]


async def test_unload_ends_a_load_that_hangs(rig: Rig, endless_model: Path) -> None:
    load = asyncio.create_task(rig.engine.load(spec(endless_model)))
    await rig.until(lambda r: any("loading model" in line.message for line in r.lines))
    began = time.monotonic()
    await rig.engine.unload(1)
    assert time.monotonic() - began < 10
    with pytest.raises(LoadFailed, match="unloaded"):
        await load


async def test_the_deadline_ends_a_load_that_hangs(rig: Rig, endless_model: Path) -> None:
    with pytest.raises(DeadlineExceeded):
        await rig.engine.load(spec(endless_model, timeout_s=0.5))


async def test_unload_lets_a_running_answer_end(rig: Rig, model_files: Path) -> None:
    runtime = await rig.engine.load(spec(model_files / "slow.gguf"))
    answer = asyncio.create_task(post(runtime, "/completion", {"prompt": "the", "n_predict": 20, "ignore_eos": True}))
    while not any(s["is_processing"] for s in await get(runtime, "/slots")):  # type: ignore[attr-defined]
        await asyncio.sleep(0.01)
    await rig.engine.unload(1, drain_s=30)
    body = await answer
    assert isinstance(body, dict)
    assert body["tokens_predicted"] == 20


async def test_an_endless_answer_does_not_hold_up_an_unload_for_long(rig: Rig, model_files: Path) -> None:
    runtime = await rig.engine.load(spec(model_files / "slow.gguf"))
    assert runtime.endpoint is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", runtime.endpoint.port)
    body = json.dumps({"prompt": "the", "n_predict": -1, "stream": True, "ignore_eos": True}).encode()
    fields = f"Host: x\r\nAuthorization: Bearer {runtime.endpoint.api_key}\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(b"POST /completion HTTP/1.1\r\n" + fields.encode() + body)
    await reader.readuntil(b"data: ")
    began = time.monotonic()
    await rig.engine.unload(1, drain_s=0.2)
    assert time.monotonic() - began < 10
    writer.transport.abort()


@pytest.mark.parametrize("moment", ["loading", "ready"])
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a child notices only when it has loaded")
def test_kill_minus_9_of_the_service_leaves_no_orphan(
    launcher: Launcher, model_files: Path, endless_model: Path, moment: str
) -> None:
    model = endless_model if moment == "loading" else model_files / "chat.gguf"
    command = [sys.executable, str(OWNER), launcher.binary or "embedded", str(model), moment]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        child = int(owner.stdout.readline())
        try:
            assert is_alive(child)
            owner.kill()
            owner.wait()
            deadline = time.monotonic() + 30
            while is_alive(child) and time.monotonic() < deadline:
                time.sleep(0.01)
            assert not is_alive(child)
        finally:
            owner.kill()
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
