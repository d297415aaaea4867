"""JSON values of outputs and errors on the web UI's namespace."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import msgspec
from msgspec import UNSET

from llama_async_proxy.api.ui.schema import CallError, rendered_request
from llama_async_proxy.errors import InvalidInput, ServiceError
from llama_async_proxy.operations.requests import RequestList


def rendered_error(error: ServiceError) -> object:
    """The `error` of a call that failed."""
    field = error.field if isinstance(error, InvalidInput) and error.field else UNSET
    return msgspec.to_builtins(CallError(error.rest_code, error.message, field, error.details or UNSET))


def rendered_output(output: object) -> object:
    """The `data` of a call: an operation's output."""
    if isinstance(output, RequestList):
        return {"live": msgspec.to_builtins(output.live), "recent": [rendered_request(one) for one in output.recent]}
    return msgspec.to_builtins(output, enc_hook=_plain)


def _plain(value: object) -> object:
    """JSON values of types that msgspec does not know."""
    if isinstance(value, MappingProxyType):
        return dict(value)
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"no JSON for {type(value)}")
