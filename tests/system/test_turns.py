"""Models that cannot be loaded together, in the real service."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from support.service import RunningService, ServiceFactory

pytestmark = pytest.mark.engine


def ask(service: RunningService, model: str, tokens: int) -> tuple[int, Any]:
    body = {"model": model, "max_tokens": tokens, "messages": [{"role": "user", "content": "hello"}]}
    return service.call("POST", "/v1/chat/completions", body)


def test_a_model_in_endless_use_gives_its_place_to_one_that_waits(
    start_service: ServiceFactory, models_dir: Path
) -> None:
    service = start_service("--max-models", "1", "--fairness", "1", models_dir=models_dir)
    service.wait_for_models(4)
    assert ask(service, "slow", 1)[0] == 200
    over = threading.Event()
    statuses: list[int] = []

    def keep_busy() -> None:
        while not over.is_set():
            statuses.append(ask(service, "slow", 20)[0])

    clients = [threading.Thread(target=keep_busy) for _ in range(3)]
    for client in clients:
        client.start()
        time.sleep(0.1)  # so that their requests overlap
    try:
        status, answer = ask(service, "chat", 1)
    finally:
        over.set()
        for client in clients:
            client.join(30)
    assert (status, answer["model"]) == (200, "chat")
    assert set(statuses) == {200}
    assert service.wait_for_status("slow", "running")
