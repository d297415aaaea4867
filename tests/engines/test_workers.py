"""The engine's contract, with a fake llama-server that is a real program."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path

import pytest
from msgspec.structs import replace

from llama_async_proxy.engines.contract import Engine
from llama_async_proxy.engines.discovery import Launcher
from llama_async_proxy.engines.supervised import EngineHooks
from llama_async_proxy.engines.supervisor import Timing
from llama_async_proxy.engines.workers import WorkersEngine
from llama_async_proxy.errors import DeadlineExceeded, EngineMissing, EngineStopped, InvalidInput, LoadFailed
from llama_async_proxy.events import EngineChanged, EventBus, ModelRuntimeChanged
from llama_async_proxy.records.engine import EngineEventType, EngineStatus
from llama_async_proxy.records.logs import LogLevel
from llama_async_proxy.records.runtime import ModelRuntime, ModelStatus
from support.rig import FAKE_LLAMA, Rig, children_of_this_process, fake_spec, get, is_alive

UNLOADED, LOADING, READY = ModelStatus.UNLOADED, ModelStatus.LOADING, ModelStatus.READY
SLEEPING, STOPPING, FAILED = ModelStatus.SLEEPING, ModelStatus.STOPPING, ModelStatus.FAILED
STARTED, STOPPED = EngineEventType.STARTED, EngineEventType.STOPPED
CLOSED, ERROR = EngineEventType.CLOSED, EngineEventType.ERROR


def pid_of(runtime: ModelRuntime) -> int:
    assert runtime.pid is not None
    return runtime.pid


def kill(runtime: ModelRuntime) -> None:
    os.kill(pid_of(runtime), signal.SIGKILL)


# --- the engine -------------------------------------------------------------------------------------------


def test_workers_engine_keeps_the_contract(rig: Rig) -> None:
    contract: Engine = rig.engine
    assert contract.state.status is EngineStatus.RUNNING


async def test_start_and_stop_are_idempotent_and_published_once(rig: Rig) -> None:
    assert (await rig.engine.start()).binary == str(FAKE_LLAMA)
    await rig.engine.stop()
    await rig.engine.stop()
    assert rig.engine.state.status is EngineStatus.IDLE
    await rig.settle()
    assert rig.engine_events() == [STARTED, STOPPED]


async def test_a_missing_engine_is_an_error_state_and_an_error_for_loads() -> None:
    def find() -> Launcher:
        raise EngineMissing("Install something")

    bus = EventBus()
    with bus.subscribe(EngineChanged) as events:
        async with WorkersEngine(EngineHooks(bus, lambda _: None), find) as engine:
            with pytest.raises(EngineMissing, match="Install something"):
                await engine.start()
            assert engine.state.status is EngineStatus.ERROR
            assert engine.state.error == "Install something"
            with pytest.raises(EngineMissing, match="Install something"):
                await engine.load(fake_spec())
            event = await anext(aiter(events))
    assert isinstance(event, EngineChanged)
    assert (event.type, event.error) == (ERROR, "Install something")


async def test_stop_ends_every_model_and_refuses_loads_until_start(rig: Rig) -> None:
    loaded = [await rig.engine.load(fake_spec(n)) for n in (1, 2, 3)]
    assert len(rig.engine.runtimes()) == 3
    await rig.engine.stop()
    assert rig.engine.runtimes() == ()
    assert not [r for r in loaded if is_alive(pid_of(r))]
    with pytest.raises(EngineStopped):
        await rig.engine.load(fake_spec())
    await rig.engine.start()
    assert (await rig.engine.load(fake_spec())).status is READY


async def test_an_error_in_the_block_is_raised_unchanged_and_children_are_ended() -> None:
    before = children_of_this_process()

    async def body() -> None:
        async with Rig().running() as rig:
            await rig.engine.load(fake_spec())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await body()
    assert children_of_this_process() <= before


async def test_a_cancelled_service_leaves_no_process(tmp_path: Path) -> None:
    before = children_of_this_process()
    rig = Rig()

    async def service() -> None:
        async with rig.running():
            await rig.engine.load(fake_spec(1))
            await rig.engine.load(fake_spec(2, options={"gate": str(tmp_path / "never")}))

    task = asyncio.create_task(service())
    while rig.engine.runtime(2).pid is None:
        await asyncio.sleep(0.01)
    assert len(children_of_this_process() - before) == 2
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children_of_this_process() <= before


async def test_a_service_cancelled_twice_still_answers_its_callers(tmp_path: Path) -> None:
    before = children_of_this_process()
    rig, loads = Rig(), []

    async def service() -> None:
        async with rig.running():
            spec = fake_spec(options={"gate": str(tmp_path / "never")})
            loads.append(asyncio.create_task(rig.engine.load(spec)))
            await rig.until(lambda r: r.engine.runtime(1).pid)
            service_task.cancel()
            asyncio.get_running_loop().call_soon(service_task.cancel)
            await asyncio.sleep(0)

    service_task = asyncio.create_task(service())
    await asyncio.wait({service_task})
    [load] = loads
    async with asyncio.timeout(30):
        with pytest.raises((LoadFailed, EngineStopped)):
            await load
    assert children_of_this_process() <= before


# --- load -------------------------------------------------------------------------------------------------


async def test_load_returns_when_ready_with_the_process_properties(rig: Rig) -> None:
    runtime = await rig.engine.load(fake_spec(options={"progress": 2}))
    assert runtime == rig.engine.runtime(1)
    assert runtime.status is READY
    assert (runtime.context_size, runtime.slots) == (2048, 2)
    assert runtime.options == {"fake-progress": 2}
    assert (runtime.rss_bytes or 0) > 1 << 20
    assert runtime.load_duration_ms is not None
    arguments = await get(runtime, "/fake/arguments")
    assert isinstance(arguments, list)
    assert arguments[arguments.index("--alias") + 1] == "m1"
    await rig.settle()
    assert rig.statuses() == [LOADING, READY]


async def test_every_change_names_the_state_before_it(rig: Rig) -> None:
    await rig.engine.load(fake_spec())
    await rig.engine.unload(1)
    await rig.settle()
    changes = [e for e in rig.events if isinstance(e, ModelRuntimeChanged)]
    assert [c.previous for c in changes] == [ModelRuntime(1), *(c.runtime for c in changes[:-1])]
    for runtime in (c.runtime for c in changes):
        assert (runtime.endpoint is not None) == (runtime.status in (READY, SLEEPING, STOPPING))
        assert (runtime.progress is not None) == (runtime.status is LOADING)


async def test_callers_of_one_model_share_one_load(rig: Rig, tmp_path: Path) -> None:
    gate, starts = tmp_path / "gate", tmp_path / "starts"
    spec = fake_spec(options={"gate": str(gate), "starts": str(starts)})
    async with asyncio.TaskGroup() as group:
        loads = [group.create_task(rig.engine.load(spec)) for _ in range(5)]
        await rig.until(lambda r: r.engine.runtime(1).pid)
        loads.append(group.create_task(rig.engine.load(fake_spec())))
        gate.touch()
    assert len({task.result().pid for task in loads}) == 1
    assert (await rig.engine.load(fake_spec())).options == spec.options, "the first caller's options count"
    assert starts.read_text() == "x"


async def test_a_cancelled_caller_does_not_cancel_the_load(rig: Rig, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    spec = fake_spec(options={"gate": str(gate)})
    first = asyncio.create_task(rig.engine.load(spec))
    await rig.until(lambda r: r.engine.runtime(1).pid)
    second = asyncio.create_task(rig.engine.load(spec))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait({first})
    gate.touch()
    assert (await second).status is READY


async def test_a_server_without_state_lines_is_found_by_its_health(rig: Rig) -> None:
    runtime = await rig.engine.load(fake_spec(options={"silent": True}))
    assert runtime.status is READY
    assert (runtime.context_size, runtime.slots) == (None, None)


async def test_progress_is_published_at_a_bounded_rate(rig: Rig) -> None:
    await rig.engine.load(fake_spec(options={"progress": 1000}))
    await rig.settle()
    runtimes = [e.runtime for e in rig.events if isinstance(e, ModelRuntimeChanged)]
    assert any(r.progress and r.progress.stage == "text_model" for r in runtimes)
    assert len(runtimes) < 20


async def test_a_taken_port_is_tried_again_with_another(rig: Rig, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    runtime = await rig.engine.load(fake_spec(options={"taken": 2, "starts": str(starts)}))
    assert runtime.status is READY
    assert starts.read_text() == "xxx"
    await rig.settle()
    assert rig.statuses() == [LOADING, READY]


async def test_an_invalid_option_is_refused_before_a_process_starts(rig: Rig) -> None:
    with pytest.raises(InvalidInput) as caught:
        await rig.engine.load(fake_spec(options={"x": "--host"}))
    assert caught.value.field == "options.fake-x"
    assert rig.engine.runtime(1).status is UNLOADED


async def test_output_arrives_as_log_lines_of_the_model(rig: Rig) -> None:
    with pytest.raises(LoadFailed):
        await rig.engine.load(fake_spec(options={"fail": True}))
    [line] = rig.lines
    assert (line.level, line.source, line.message) == (LogLevel.ERROR, "model:m1", "srv llama_server: made to fail")


# --- a load that fails ------------------------------------------------------------------------------------


async def test_a_failed_load_carries_reason_exit_and_log(rig: Rig) -> None:
    with pytest.raises(LoadFailed) as caught:
        await rig.engine.load(fake_spec(options={"fail": True}))
    assert caught.value.reason == "The model did not load: made to fail (exit code 1)"
    assert caught.value.exit_code == 1
    assert caught.value.log_tail == ("srv llama_server: made to fail",)
    runtime = rig.engine.runtime(1)
    assert (runtime.status, runtime.error, runtime.exit_code) == (FAILED, caught.value.reason, 1)
    assert runtime.log_tail == caught.value.log_tail
    await rig.settle()
    assert rig.statuses() == [LOADING, FAILED]
    assert rig.engine_events() == [STARTED, ERROR]


async def test_every_caller_of_a_failed_load_gets_the_reason(rig: Rig) -> None:
    results = await asyncio.gather(
        *(rig.engine.load(fake_spec(options={"fail": True})) for _ in range(3)), return_exceptions=True
    )
    assert {str(r) for r in results} == {"The model did not load: made to fail (exit code 1)"}


async def test_a_failed_model_can_be_loaded_again(rig: Rig) -> None:
    with pytest.raises(LoadFailed):
        await rig.engine.load(fake_spec(options={"fail": True}))
    assert (await rig.engine.load(fake_spec())).status is READY
    await rig.settle()
    assert rig.statuses() == [LOADING, FAILED, LOADING, READY]


async def test_an_exit_between_ready_line_and_health_check_is_a_failed_load(rig: Rig) -> None:
    with pytest.raises(LoadFailed, match="exit code 7"):
        await rig.engine.load(fake_spec(options={"false-ready": True}))
    await rig.settle()
    assert rig.statuses() == [LOADING, FAILED]


async def test_the_deadline_ends_load_and_process(rig: Rig, tmp_path: Path) -> None:
    spec = fake_spec(options={"gate": str(tmp_path / "never")}, timeout_s=0.4)
    task = asyncio.create_task(rig.engine.load(spec))
    await rig.until(lambda r: r.engine.runtime(1).pid)
    pid = pid_of(rig.engine.runtime(1))
    with pytest.raises(DeadlineExceeded, match=r"within 0\.4 s"):
        await task
    assert not is_alive(pid)
    assert rig.engine.runtime(1).status is FAILED


async def test_a_caller_that_joins_a_load_has_its_own_deadline(rig: Rig, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    first = asyncio.create_task(rig.engine.load(fake_spec(options={"gate": str(gate)})))
    await asyncio.sleep(0)
    with pytest.raises(DeadlineExceeded):
        await rig.engine.load(fake_spec(timeout_s=0.05))
    gate.touch()
    assert (await first).status is READY


async def test_a_program_that_cannot_run_is_a_failed_load() -> None:
    launcher = Launcher("workers", ("/nonexistent/llama-server",), "1")
    async with Rig(launcher).running() as rig:
        with pytest.raises(LoadFailed, match=r"/nonexistent/llama-server cannot be run: No such file"):
            await rig.engine.load(fake_spec())


# --- unload -----------------------------------------------------------------------------------------------


async def test_unload_ends_the_process_gracefully(rig: Rig) -> None:
    runtime = await rig.engine.load(fake_spec())
    assert (await rig.engine.unload(1)).status is UNLOADED
    assert not is_alive(pid_of(runtime))
    await rig.settle()
    assert rig.statuses() == [LOADING, READY, STOPPING, UNLOADED]
    assert rig.engine_events() == [STARTED], "an end that was asked for is no event"


async def test_unload_is_a_no_op_when_unloaded_and_forgets_a_failure(rig: Rig) -> None:
    assert (await rig.engine.unload(1)).status is UNLOADED
    with pytest.raises(LoadFailed):
        await rig.engine.load(fake_spec(options={"fail": True}))
    assert (await rig.engine.unload(1)).status is UNLOADED
    assert rig.engine.runtimes() == ()
    await rig.settle()
    assert rig.statuses() == [LOADING, FAILED, UNLOADED]


async def test_unload_kills_a_model_that_is_loading_and_says_so_to_its_caller(rig: Rig, tmp_path: Path) -> None:
    load = asyncio.create_task(rig.engine.load(fake_spec(options={"gate": str(tmp_path / "never"), "deaf": True})))
    await rig.until(lambda r: r.engine.runtime(1).pid)
    pid = pid_of(rig.engine.runtime(1))
    await rig.engine.unload(1)
    assert not is_alive(pid)
    with pytest.raises(LoadFailed, match="unloaded before it was ready"):
        await load
    await rig.settle()
    assert rig.statuses() == [LOADING, UNLOADED]


async def test_unload_at_the_very_start_of_a_load(rig: Rig) -> None:
    load = asyncio.create_task(rig.engine.load(fake_spec()))
    await asyncio.sleep(0)
    await rig.engine.unload(1)
    with pytest.raises(LoadFailed):
        await load
    assert rig.engine.runtimes() == ()


async def test_stop_during_a_load_tells_the_caller_that_the_engine_stopped(rig: Rig, tmp_path: Path) -> None:
    load = asyncio.create_task(rig.engine.load(fake_spec(options={"gate": str(tmp_path / "never")})))
    await rig.until(lambda r: r.engine.runtime(1).pid)
    await rig.engine.stop()
    with pytest.raises(EngineStopped):
        await load


async def test_unload_waits_for_running_requests(rig: Rig, tmp_path: Path) -> None:
    busy = tmp_path / "busy"
    busy.touch()
    runtime = await rig.engine.load(fake_spec(options={"busy": str(busy)}))
    unload = asyncio.create_task(rig.engine.unload(1, drain_s=30))
    assert (await rig.until_status(STOPPING)).endpoint == runtime.endpoint, "it still answers"
    slots = await get(runtime, "/slots")
    assert slots == [{"id": 0, "is_processing": True}]
    busy.unlink()
    assert (await unload).status is UNLOADED


async def test_a_drain_ends_at_its_limit_and_a_second_unload_shortens_it(rig: Rig, tmp_path: Path) -> None:
    busy = tmp_path / "busy"
    busy.touch()
    await rig.engine.load(fake_spec(options={"busy": str(busy)}))
    patient = asyncio.create_task(rig.engine.unload(1, drain_s=3600))
    await rig.until_status(STOPPING)
    async with asyncio.timeout(30):
        await rig.engine.unload(1, drain_s=0.1)
        assert (await patient).status is UNLOADED


async def test_a_process_that_ignores_sigterm_is_killed() -> None:
    async with Rig(timing=Timing(stop_grace_s=0.1)).running() as rig:
        runtime = await rig.engine.load(fake_spec(options={"deaf": True}))
        await rig.engine.unload(1)
        assert not is_alive(pid_of(runtime))


async def test_a_model_may_have_its_own_stop_timeout() -> None:
    async with Rig(timing=Timing(stop_grace_s=3600)).running() as rig:
        runtime = await rig.engine.load(replace(fake_spec(options={"deaf": True}), stop_timeout_s=0.1))
        async with asyncio.timeout(60):
            await rig.engine.unload(1)
        assert not is_alive(pid_of(runtime))


async def test_load_while_stopping_waits_for_the_end_and_starts_anew(rig: Rig, tmp_path: Path) -> None:
    busy = tmp_path / "busy"
    busy.touch()
    old = await rig.engine.load(fake_spec(options={"busy": str(busy)}))
    unload = asyncio.create_task(rig.engine.unload(1, drain_s=30))
    await rig.until_status(STOPPING)
    load = asyncio.create_task(rig.engine.load(fake_spec()))
    await asyncio.sleep(0)
    busy.unlink()
    new = await load
    assert new.pid != old.pid
    assert (await unload).status is UNLOADED
    await rig.settle()
    assert rig.statuses() == [LOADING, READY, STOPPING, UNLOADED, LOADING, READY]


async def test_a_process_that_dies_while_stopping_is_no_crash(rig: Rig, tmp_path: Path) -> None:
    busy = tmp_path / "busy"
    busy.touch()
    runtime = await rig.engine.load(fake_spec(options={"busy": str(busy)}))
    unload = asyncio.create_task(rig.engine.unload(1, drain_s=30))
    await rig.until_status(STOPPING)
    kill(runtime)
    assert (await unload).status is UNLOADED
    await rig.settle()
    assert rig.engine_events() == [STARTED]


async def test_a_cancelled_unload_still_happens(rig: Rig) -> None:
    await rig.engine.load(fake_spec())
    unload = asyncio.create_task(rig.engine.unload(1))
    await asyncio.sleep(0)
    unload.cancel()
    await rig.until_status(UNLOADED)


# --- crash ------------------------------------------------------------------------------------------------


async def test_a_crash_is_reported_once_and_the_model_restarts(rig: Rig) -> None:
    first = await rig.engine.load(fake_spec())
    kill(first)
    await rig.until(lambda r: r.engine.runtime(1).status is READY and r.engine.runtime(1).pid != first.pid)
    second = rig.engine.runtime(1)
    assert second.restarts == 1
    await rig.settle()
    assert rig.statuses() == [LOADING, READY, LOADING, READY]
    assert rig.engine_events() == [STARTED, CLOSED]
    [closed] = [e for e in rig.events if isinstance(e, EngineChanged) and e.type is CLOSED]
    assert closed.model_id == 1
    assert closed.error == ("The model's process ended unexpectedly: killed by signal 9 (SIGKILL; often out of memory)")


async def test_load_during_a_restart_joins_it(rig: Rig) -> None:
    first = await rig.engine.load(fake_spec())
    kill(first)
    await rig.until_status(LOADING)
    assert (await rig.engine.load(fake_spec())).restarts == 1


async def test_a_model_fails_with_one_error_when_its_tries_are_used_up(rig: Rig, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    kill(await rig.engine.load(fake_spec(options={"starts": str(starts), "bad-from": 2})))
    await rig.until_status(LOADING)
    with pytest.raises(LoadFailed, match="start 4 is bad"):
        await rig.engine.load(fake_spec())
    assert starts.read_text() == "xxxx", "the first start and three tries"
    assert rig.engine.runtime(1).status is FAILED
    assert rig.engine.runtime(1).restarts == 3
    await rig.settle()
    assert rig.engine_events() == [STARTED, CLOSED, ERROR]


async def test_a_model_that_crashes_after_each_start_fails_too(rig: Rig) -> None:
    runtime = await rig.engine.load(fake_spec())
    for _ in range(3):
        old = runtime
        kill(old)
        await rig.until(lambda r: r.engine.runtime(1).status is READY and r.engine.runtime(1).pid != old.pid)  # noqa: B023
        runtime = rig.engine.runtime(1)
    kill(runtime)
    assert "ended unexpectedly" in ((await rig.until_status(FAILED)).error or "")
    await rig.settle()
    assert rig.engine_events() == [STARTED, CLOSED, CLOSED, CLOSED, CLOSED, ERROR]


async def test_a_healthy_model_gets_its_tries_back() -> None:
    async with Rig(timing=Timing(restart_delays_s=(0.01,), healthy_s=0.1)).running() as rig:
        first = await rig.engine.load(fake_spec())
        kill(first)
        await rig.until(lambda r: r.engine.runtime(1).status is READY and r.engine.runtime(1).restarts == 1)
        await rig.until(lambda r: r.engine.runtime(1).restarts == 0)
        kill(rig.engine.runtime(1))
        await rig.until(lambda r: r.statuses().count(READY) == 3)


async def test_unload_during_the_pause_before_a_restart() -> None:
    async with Rig(timing=Timing(restart_delays_s=(3600.0,))).running() as rig:
        kill(await rig.engine.load(fake_spec()))
        waiting = await rig.until_status(LOADING)
        assert waiting.progress is not None
        assert waiting.progress.stage == "restarting"
        assert waiting.pid is None
        load = asyncio.create_task(rig.engine.load(fake_spec()))
        await asyncio.sleep(0)
        async with asyncio.timeout(30):
            await rig.engine.unload(1)
        with pytest.raises(LoadFailed, match="unloaded"):
            await load
        await rig.settle()
        assert rig.statuses() == [LOADING, READY, LOADING, UNLOADED]


# --- other ------------------------------------------------------------------------------------------------


async def test_sleeping_and_waking_are_followed(rig: Rig) -> None:
    runtime = await rig.engine.load(fake_spec())
    await get(runtime, "/fake/say/sleeping")
    asleep = await rig.until_status(SLEEPING)
    assert asleep.endpoint == runtime.endpoint
    assert (await rig.engine.load(fake_spec())).status is SLEEPING, "answers at once"
    await get(runtime, "/fake/say/ready")
    await rig.until_status(READY)
    assert (await rig.engine.unload(1)).status is UNLOADED


async def test_measure_reads_memory_without_an_event(rig: Rig) -> None:
    await rig.engine.load(fake_spec())
    await rig.settle()
    count = len(rig.events)
    rig.engine.measure()
    [runtime] = rig.engine.runtimes()
    assert (runtime.rss_bytes or 0) > 1 << 20
    await rig.settle()
    assert len(rig.events) == count


async def test_models_load_side_by_side(rig: Rig, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    slow = asyncio.create_task(rig.engine.load(fake_spec(1, options={"gate": str(gate)})))
    await asyncio.sleep(0)
    assert (await rig.engine.load(fake_spec(2))).status is READY
    assert rig.engine.runtime(1).status is LOADING
    gate.touch()
    assert (await slow).status is READY


def test_load_crash_and_unload_work_on_uvloop() -> None:
    import uvloop

    async def life() -> None:
        rig = Rig()
        async with rig.running():
            first = await rig.engine.load(fake_spec())
            kill(first)
            await rig.until(lambda r: r.engine.runtime(1).status is READY and r.engine.runtime(1).pid != first.pid)
            with pytest.raises(LoadFailed, match="made to fail"):
                await rig.engine.load(fake_spec(2, options={"fail": True}))
            await rig.engine.unload(1)
            await rig.settle()
            assert rig.statuses() == [LOADING, READY, LOADING, READY, STOPPING, UNLOADED]

    before, threads = children_of_this_process(), threading.active_count()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(life())
    assert children_of_this_process() <= before
    assert threading.active_count() <= threads
