from __future__ import annotations

import hashlib

import pytest

from llama_async_proxy.inference.request_log import RequestLogEntry, key_id
from llama_async_proxy.inference.scheduling.leases import Lease
from support.upstream import event, make_model


def test_a_request_that_failed_early_is_recorded_with_the_known_facts() -> None:
    entry = RequestLogEntry("127.0.0.1", "/completion")
    entry.status, entry.error = 404, "Model 'x' not found."
    record = entry.record()
    assert (record.client, record.route, record.status, record.error) == (
        "127.0.0.1",
        "/completion",
        404,
        "Model 'x' not found.",
    )
    assert (record.queued_ms, record.load_ms, record.first_token_ms, record.prompt_tokens) == (None,) * 4
    assert record.arrived_at_ms > 1_600_000_000_000


def test_waiting_times_are_the_leases() -> None:
    entry = RequestLogEntry("", "/completion")
    lease = Lease(make_model())
    entry.leased(lease)
    lease.queued_s, lease.load_s = 0.5, 2.0
    record = entry.record()
    assert (record.queued_ms, record.load_ms) == (500.0, 2000.0)


def test_a_stream_without_timings_is_measured_from_its_first_token(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 3.0])
    monkeypatch.setattr("llama_async_proxy.inference.request_log.time.perf_counter", lambda: next(clock))
    entry = RequestLogEntry("", "/v1/messages")
    entry.streamed = True
    entry.received(event({"message": {"usage": {"input_tokens": 4, "output_tokens": 0}}}))
    entry.received(event({"delta": {"text": "a"}}))
    entry.received(event({"usage": {"output_tokens": 11}}))
    entry.end()
    record = entry.record()
    assert record.first_token_ms == 1000.0
    assert record.total_ms == 3000.0
    assert (record.prompt_tokens, record.completion_tokens) == (4, 11)
    assert record.tokens_per_second == 10 / 2.0


@pytest.mark.parametrize(
    "header", [(b"authorization", b"Bearer sk-secret"), (b"x-api-key", b"sk-secret"), (b"authorization", b"sk-secret")]
)
def test_a_key_is_identified_without_being_revealed(header: tuple[bytes, bytes]) -> None:
    key = key_id([(b"host", b"a"), header])
    assert key == hashlib.sha256(b"sk-secret").hexdigest()[:8]
    assert RequestLogEntry("", "/", key=key).record().key == key
    assert key_id([(b"authorization", b"Bearer other")]) != key


def test_a_request_without_a_key_has_no_key_id() -> None:
    assert key_id([(b"host", b"a"), (b"authorization", b"")]) is None


def test_every_request_has_an_id_of_its_own() -> None:
    assert len({RequestLogEntry("", "/").id for _ in range(100)}) == 100
