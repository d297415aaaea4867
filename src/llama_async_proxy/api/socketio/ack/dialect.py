"""The acknowledged dialect as a table: namespace `/llamaproxws`, answers by acknowledgement, bare events."""

from __future__ import annotations

from llama_async_proxy.api.socketio.ack import config, connection, logs, metrics, models, presets
from llama_async_proxy.api.socketio.contract import Dialect

ACK = Dialect(
    title="Socket.IO with acknowledgements",
    namespace="/llamaproxws",
    path="/socket.io",
    calls=(*models.CALLS, *presets.CALLS, *config.CALLS, *metrics.CALLS, *logs.CALLS),
    events=(*connection.EVENTS, *models.EVENTS, *metrics.EVENTS, *logs.EVENTS),
    codes={
        "MODEL_NOT_FOUND": "There is no such model.",
        "MODEL_LOAD_FAILED": "The model did not come up; the message says why.",
        "MODEL_UNLOAD_FAILED": "The model is not loaded.",
        "PRESET_NOT_FOUND": "There is no preset of that name.",
        "PRESET_SAVE_FAILED": "The preset could not be written.",
        "CONFIG_INVALID": "A value is refused; nothing has changed.",
        "PERMISSION_DENIED": "The operating system or a rule forbids the operation.",
        "INVALID_REQUEST": "The request is malformed; the message names the field.",
        "SERVER_ERROR": "The service has a fault, or too many requests of this client are running.",
    },
    unexpected="SERVER_ERROR",
    overloaded="SERVER_ERROR",
    not_found="MODEL_NOT_FOUND",
)
