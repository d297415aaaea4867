"""A request that succeeds, for every event of both dialects that has fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_async_proxy.api.socketio.contract import Dialect

PRESET = {"*": {"ctx-size": 512}, "chat": {"threads": 1}}
V1_REQUESTS: Mapping[str, Any] = {
    "models:get": {"modelId": 1},
    "models:update": {"modelId": 1, "updates": {"ctx_size": 512}},
    "models:toggle-favorite": {"modelId": 1, "favorite": True},
    "models:load": {"modelId": 1},
    "models:unload": {"modelId": 1},
    "config:update": {"config": {"threads": 1}},
    "settings:update": {"settings": {"theme": "dark", "maxModelsLoaded": 3}},
    "presets:save": {"filename": "own", "config": PRESET},
    "presets:create": {"filename": "other", "description": "One more"},
    "presets:read": {"filename": "own"},
    "presets:get-models": {"filename": "own"},
    "presets:add-model": {"filename": "own", "modelName": "slow", "config": {"ctx-size": 256}},
    "presets:update-model": {"filename": "own", "modelName": "slow", "config": {"threads": 2}},
    "presets:remove-model": {"filename": "own", "modelName": "slow"},
    "presets:get-defaults": {"filename": "own"},
    "presets:update-defaults": {"filename": "own", "config": {"ctx-size": 1024}},
    "presets:validate-config": {"config": PRESET},
    "presets:show-inheritance": {"filename": "own", "modelName": "chat"},
    "presets:delete": {"filename": "other"},
    "presets:start-with-preset": {"filename": "own", "options": {"maxModels": 2}},
    "llama:start-with-preset": {"presetName": "own", "threads": 1},
    "llama:config": {"settings": {"maxModels": 2, "ctxSize": 512}},
    "subscribe": {"type": "metrics"},
    "message": {"type": "subscribe", "data": {"type": "logs"}, "timestamp": 1},
}
ACK_REQUESTS: Mapping[str, Any] = {
    "models:load": {"id": "chat"},
    "models:info": {"id": "chat"},
    "models:unload": {"id": "chat"},
    "presets:save": {"filename": "mine", "config": {"*": {"ctx-size": "4096", "temp": "0.7"}}},
    "presets:validate-config": {"filename": "mine", "config": {"*": {"ctx-size": "4096"}}},
    "config:update": {"server": {"port": 3001}, "llama": {"maxModels": 8}},
    "logs:get": {"level": "info", "limit": 100, "since": "2024-01-15T00:00:00.000Z"},
    "presets:read": {"filename": "mine"},
    "presets:delete": {"filename": "mine"},
}
LAST = ("presets:delete", "presets:stop-server", "llama:start", "llama:stop", "llama:restart")
"""Requests that come after the others, in this order, because they remove what the others need."""


def in_order(dialect: Dialect, requests: Mapping[str, Any]) -> list[str]:
    """Events of the dialect: those of `requests` in their order, then the others, then LAST."""
    known = [call.event for call in dialect.calls]
    first = [event for event in requests if event not in LAST]
    return [*first, *(e for e in known if e not in first and e not in LAST), *(e for e in LAST if e in known)]
