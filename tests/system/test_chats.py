"""Conversations on the real service with the real engine, as a chat client sees them."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.service import RunningService, ServiceFactory

pytestmark = pytest.mark.engine


def begin(service: RunningService, model: str) -> int:
    status, made = service.call("POST", "/api/conversations", {"title": "Talk", "model": model})
    assert status == 201
    chat: int = made["conversation_id"]
    return chat


@contextmanager
def streamed(service: RunningService, chat: int, model: str) -> Iterator[Iterator[tuple[str, Any]]]:
    """Events of an answer as (name, data)."""
    body = {"conversation_id": chat, "message": "Tell me everything", "model": model, "stream": True}
    with closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)) as connection:
        connection.request("POST", "/api/chat", json.dumps(body), {"Content-Type": "application/json"})
        with connection.getresponse() as response:
            assert response.status == 200
            yield (
                (data["type"], data)
                for line in response
                if line.startswith(b"data: ")
                for data in [json.loads(line.removeprefix(b"data: "))]
            )


def messages(service: RunningService, chat: int) -> list[Any]:
    return list(service.call("GET", f"/api/conversations/{chat}")[1]["messages"])


def test_a_model_answers_and_remembers_what_was_said(service: RunningService) -> None:
    chat = begin(service, "chat.gguf")
    options = {"options": {"num_predict": 8, "temperature": 0.0}}
    assert service.call("PUT", f"/api/conversations/{chat}", options)[0] == 200
    sent = {"conversation_id": chat, "message": "Hello", "model": "chat.gguf"}
    status, first = service.call("POST", "/api/chat", sent)
    assert status == 200
    assert 1 <= first["metrics"]["completion_tokens"] <= 8
    assert first["metrics"]["total_tokens"] == first["metrics"]["prompt_tokens"] + first["metrics"]["completion_tokens"]
    status, second = service.call("POST", "/api/chat", sent)
    assert second["metrics"]["prompt_tokens"] > first["metrics"]["prompt_tokens"]
    stored = messages(service, chat)
    assert [message["content"] for message in stored[1::2]] == [first["response"], second["response"]]
    usage = service.wait_until(
        lambda: service.call("GET", "/api/stats")[1]["total"], lambda total: total["requests"] >= 2, 15
    )
    assert usage["completion_tokens"] >= 2


def test_a_stream_is_the_whole_answer_and_another_branch_stands_beside_it(service: RunningService) -> None:
    chat = begin(service, "chat.gguf")
    service.call("PUT", f"/api/conversations/{chat}", {"options": {"num_predict": 6}})
    with streamed(service, chat, "chat.gguf") as events:
        names, data = zip(*events, strict=True)
    assert (names[0], names[-1]) == ("start", "done")
    assert "".join(token["content"] for token in data[1:-1]) == data[-1]["response"]
    answer = messages(service, chat)[1]
    status, again = service.call("POST", f"/api/conversations/{chat}/messages/{answer['id']}/regenerate")
    assert (status, again["message_id"] != answer["id"]) == (200, True)


def test_kill_9_in_mid_answer_loses_at_most_a_second_and_marks_it_interrupted(
    start_service: ServiceFactory, models_dir: Path
) -> None:
    service = start_service(models_dir=models_dir)
    service.wait_for_models(4)
    chat = begin(service, "slow.gguf")
    seen = ""
    with streamed(service, chat, "slow.gguf") as events:
        assert next(events)[0] == "start"
        for _ in range(4):
            seen += next(events)[1]["content"]
        # What is stored a second later holds all of it.
        service.wait_until(lambda: messages(service, chat)[1]["content"], lambda text: text.startswith(seen), 30)
        service.kill()
    service.start()
    answer = messages(service, chat)[1]
    assert answer["status"] == "interrupted"
    assert answer["content"].startswith(seen)
    assert service.call("GET", "/api/conversations")[1]["conversations"][0]["answering"] is False


def test_an_answer_is_finished_though_its_reader_left(service: RunningService) -> None:
    chat = begin(service, "slow.gguf")
    service.call("PUT", f"/api/conversations/{chat}", {"options": {"num_predict": 12}})
    with streamed(service, chat, "slow.gguf") as events:
        assert next(events)[0] == "start"
    answer = service.wait_until(lambda: messages(service, chat)[1], lambda message: message["status"] == "complete", 60)
    assert answer["estimated_tokens"] >= 1


def test_sigterm_ends_an_answer_and_keeps_it(start_service: ServiceFactory, models_dir: Path) -> None:
    (models_dir.parent / "data").mkdir()
    (models_dir.parent / "data" / "llama-server-config.json").write_text(json.dumps({"llama": {"drain": 0}}))
    service = start_service(models_dir=models_dir)
    service.wait_for_models(4)
    chat = begin(service, "slow.gguf")
    with streamed(service, chat, "slow.gguf") as events:
        assert [next(events)[0], next(events)[0]] == ["start", "token"]
        assert service.stop() == 0
        *_, (name, data) = events
    assert (name, data["code"]) == ("error", "LLAMACPP_ERROR")
    service.start()
    assert messages(service, chat)[1]["status"] == "interrupted"
