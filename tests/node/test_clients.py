"""The official Socket.IO client for JavaScript against the real service."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from support.service import RunningService, ServiceFactory

HERE = Path(__file__).parent

pytestmark = [pytest.mark.node, pytest.mark.engine]


@pytest.mark.parametrize("transport", ["websocket", "polling"])
@pytest.mark.parametrize("scenario", ["styles", "connection", "load", "ui"])
def test_the_official_client(node: str, service: RunningService, scenario: str, transport: str) -> None:
    command = [node, str(HERE / "client.mjs"), scenario, service.url, transport]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=45)
    assert finished.returncode == 0, finished.stderr


def test_a_chat_client_with_fetch(node: str, service: RunningService) -> None:
    finished = subprocess.run(
        [node, str(HERE / "chat.mjs"), service.url, "chat.gguf"], capture_output=True, text=True, timeout=60
    )
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_the_official_client_comes_back_after_a_restart(
    node: str, start_service: ServiceFactory, transport: str
) -> None:
    service = start_service()
    command = [node, str(HERE / "client.mjs"), "restart", service.url, transport]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "connected\n"
        assert service.stop() == 0
        service.start()
        _, errors = client.communicate(timeout=45)
    assert client.returncode == 0, errors
