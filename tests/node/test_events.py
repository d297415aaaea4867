"""Every request and event of both dialects with the official client, against a service with a real engine."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from api.socketio.socket_requests import ACK_REQUESTS, V1_REQUESTS, in_order
from llama_async_proxy.api.socketio.ack.dialect import ACK
from llama_async_proxy.api.socketio.contract import Dialect
from llama_async_proxy.api.socketio.v1.dialect import V1
from support.service import ServiceFactory

pytestmark = [pytest.mark.node, pytest.mark.engine]

HERE = Path(__file__).parent
SOONER = {
    "monitor": {"broadcastInterval": 0.5, "engineInterval": 0.5, "modelsFeedInterval": 0.5, "logsFeedInterval": 0.5}
}
RARE = {"models:scan-progress"}
"""Events of long scans only."""


def everything(dialect: Dialect, requests: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "requests": [(event, requests.get(event, {})) for event in in_order(dialect, requests)],
        "events": sorted({event.event for event in dialect.events} - RARE),
    }


@pytest.mark.timeout(120)
@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_every_event_with_the_official_client(
    node: str, start_service: ServiceFactory, models_dir: Path, tmp_path: Path, transport: str
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/llama-server-config.json").write_text(json.dumps(SOONER))
    service = start_service(models_dir=models_dir)
    models = service.wait_for_models(4)
    assert len(models) == 4
    requests = {
        **V1_REQUESTS,
        "models:create": {},
        "models:delete": {},
        "subscribe": {"type": "models"},
    }
    v1 = everything(V1, requests)
    v1["requests"] = [("subscribe", {"type": feed}) for feed in ("metrics", "models", "logs")] + v1["requests"]
    finished = subprocess.run(
        [node, str(HERE / "events.mjs"), service.url, transport, str(models_dir)],
        input=json.dumps({"v1": v1, "ack": everything(ACK, ACK_REQUESTS)}),
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert finished.returncode == 0, finished.stderr + service.output[-3000:]
