"""Writes the pages that follow from the code: settings.md, cli.md, openapi.json, events.md, and the TypeScript events.

`python docs/generate.py` rewrites them; tests/test_docs.py fails when one is stale.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from llama_async_proxy.api.rest.app import create_rest
from llama_async_proxy.api.socketio.ack.dialect import ACK
from llama_async_proxy.api.socketio.contract import INVALID_REQUEST, Call, ConnectionCall, Dialect
from llama_async_proxy.api.socketio.v1.dialect import V1
from llama_async_proxy.cli import build_parser
from llama_async_proxy.settings import SETTINGS, Setting

DIRECTORY = Path(__file__).parent


def settings_page() -> str:
    """The table of settings, in the order of declaration."""
    head = """# Settings

Each setting has one meaning and several names. Precedence at start: command line, then environment, then
`llama-server-config.json` in the data directory, then the default. A change at run time is written to the file and,
unless the last column says restart, holds at once; what is changed by hand only, no API and no page can change.
`llama-async-proxy doctor` shows every value and its source.

| setting | command line | environment | file key | default | takes effect |
|---|---|---|---|---|---|
"""
    rows = "".join(_row(s) for s in SETTINGS)
    notes = "".join(f"- **{s.name}**: {s.help}{_limits(s)}\n" for s in SETTINGS)
    return f"{head}{rows}\n{notes}"


def _row(setting: Setting) -> str:
    environment = ", ".join(f"`{name}`" for name in setting.env_names)
    keys = ", ".join(f"`{key}`" for key in (setting.file_key, *setting.aliases))
    default = "" if setting.default in ("", None, ()) else f"`{setting.default}`"
    flag = f"`{setting.flag}`" if setting.flag else ""
    effect = "restart" if setting.restart else "at once"
    if setting.by_hand:
        effect += "; by hand only"
    return f"| {setting.name} | {flag} | {environment} | {keys} | {default} | {effect} |\n"


def _limits(setting: Setting) -> str:
    if setting.choices:
        return f" One of {', '.join(setting.choices)}."
    if setting.minimum is not None and setting.maximum is not None:
        return f" From {setting.minimum:g} to {setting.maximum:g}."
    return ""


def cli_page() -> str:
    """What `--help` says, of every command."""
    os.environ["COLUMNS"] = "110"
    pages = "".join(f"\n## {p.prog}\n\n```\n{p.format_help()}```\n" for p in _with_subcommands(build_parser()))
    return f"# Command line\n{pages}"


def _with_subcommands(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    found = [parser]
    for action in parser._subparsers._group_actions if parser._subparsers else ():
        for choice in action.choices.values() if isinstance(action.choices, Mapping) else ():
            found += _with_subcommands(choice)
    return found


def openapi() -> str:
    """The OpenAPI document of /api."""

    def no_services() -> object:
        raise AssertionError("the document needs no running service")

    document = create_rest(no_services).openapi()  # type: ignore[arg-type]
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


# --- events of Socket.IO ----------------------------------------------------------------------------------------------

Schema = Mapping[str, Any]


def events_page() -> str:
    """Requests and events of Socket.IO, in both dialects."""
    head = """# Socket.IO events

Two dialects of one service, over websocket or long polling, for clients of protocol version 5 (socket.io-client 4.x).

**Socket.IO v1**: `io(url, {path: "/llamaproxws"})`. A request is its fields, with an optional `requestId`, or an
envelope `{type: "request", event, data, requestId, timestamp, version}`. The answer
`{type: "response", event, success, data, error, requestId, timestamp, version}` goes to the acknowledgement if there is
one, else to `<event>:result`. Events without a request come as `{type: "broadcast", event, data, timestamp}`. Times are
milliseconds since the epoch, sizes bytes, use percentages.

**With acknowledgements**: `io(url + "/llamaproxws")`. The acknowledgement gets
`{success, data, timestamp}` or `{success: false, error: {message, code}, timestamp}`; events come bare. Times are
ISO 8601 in UTC, models are named by their slugs.

Every request may be refused with INVALID_REQUEST when it is malformed; a client may have 64 requests running and send
1 MB in one. Types are written as in TypeScript.
"""
    return head + "".join(_dialect(dialect) for dialect in (V1, ACK))


def _dialect(dialect: Dialect) -> str:
    calls = "".join(_call(call, dialect) for call in dialect.calls)
    events = "".join(
        f"| `{event.event}` | [{event.data.__name__}](#types-of-{_anchor(dialect)}) | {event.description} |\n"
        for event in dialect.events
    )
    codes = "".join(f"| `{code}` | {meaning} |\n" for code, meaning in dialect.codes.items())
    return f"""
## {dialect.title}: namespace `{dialect.namespace}`

| event | request | answer | error codes | broadcasts | |
|---|---|---|---|---|---|
{calls}
| event | data | |
|---|---|---|
{events}
| error code | meaning |
|---|---|
{codes}
### Types of {_anchor(dialect)}

```ts
{_interfaces(dialect)}```
"""


def _anchor(dialect: Dialect) -> str:
    return "v1" if dialect is V1 else "ack"


def _call(call: Call[Any, Any, Any] | ConnectionCall, dialect: Dialect) -> str:
    answer = f"`{call.answer.__name__}`"
    if isinstance(call, Call) and call.answers_as:
        answer += f" on `{call.answers_as}:result`"
    events = ", ".join(f"`{event}`" for event in call.broadcasts)
    codes = ", ".join(f"`{code}`" for code in error_codes(call, dialect))
    return f"| `{call.event}` | `{_type_name(call.payload)}` | {answer} | {codes} | {events} | {call.description} |\n"


def error_codes(call: Call[Any, Any, Any] | ConnectionCall, dialect: Dialect) -> list[str]:
    """The codes an event has of its own, in the order of the dialect's."""
    own = {INVALID_REQUEST}
    if isinstance(call, Call):
        own |= {call.failure or dialect.unexpected, call.not_found or "", call.invalid or ""}
    return [code for code in dialect.codes if code in own]


def typescript(dialect: Dialect) -> str:
    """Interfaces of one dialect's data, and two maps from its events to them."""
    calls = "".join(
        f"  {json.dumps(call.event)}: {{ request: {_type_name(call.payload)}; answer: {call.answer.__name__} }};\n"
        for call in dialect.calls
    )
    events = "".join(f"  {json.dumps(e.event)}: {e.data.__name__};\n" for e in dialect.events)
    codes = "".join(f"\n  | {json.dumps(code)}" for code in dialect.codes)
    return f"""// Made by docs/generate.py from the tables of events; `make docs` makes it anew.

{_interfaces(dialect)}
/** Requests: event -> data of the request and of the answer. */
export interface Calls {{
{calls}}}

/** Events that come without a request: event -> data. */
export interface Events {{
{events}}}

export type ErrorCode ={codes};
"""


def _interfaces(dialect: Dialect) -> str:
    types = {call.payload for call in dialect.calls} | {call.answer for call in dialect.calls}
    types |= {event.data for event in dialect.events}
    _, components = msgspec.json.schema_components(
        sorted(types, key=str), schema_hook=lambda _: {"title": "JSON"}, ref_template="{name}"
    )
    return "\n".join(_interface(name, components[name]) for name in sorted(components))


def _interface(name: str, schema: Schema) -> str:
    if schema.get("type") != "object":
        return f"export type {name} = {_ts(schema)};\n"
    required = schema.get("required", ())
    fields = "".join(
        f"  {key}{'' if key in required else '?'}: {_ts(value)};\n" for key, value in schema["properties"].items()
    )
    return f"export interface {name} {{\n{fields}}}\n"


_TS = {"integer": "number", "number": "number", "string": "string", "boolean": "boolean", "null": "null"}


def _ts(schema: Schema) -> str:
    if "$ref" in schema:
        return str(schema["$ref"])
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(_ts(part) for part in schema["anyOf"]))
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    match schema.get("type"):
        case "array":
            item = _ts(schema.get("items", {}))
            return f"({item})[]" if " | " in item else f"{item}[]"
        case "object":
            return f"Record<string, {_ts(schema.get('additionalProperties', {}))}>"
        case kind:
            return _TS.get(str(kind), "unknown")


def _type_name(kind: object) -> str:
    return kind.__name__ if isinstance(kind, type) and kind is not dict else "Record<string, unknown>"


PAGES: Mapping[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "cli.md": cli_page,
    "openapi.json": openapi,
    "events.md": events_page,
    "../clients/typescript/src/events-v1.ts": lambda: typescript(V1),
    "../clients/typescript/src/events-ack.ts": lambda: typescript(ACK),
}

if __name__ == "__main__":
    for name, make in PAGES.items():
        (DIRECTORY / name).write_text(make())
        print(f"wrote docs/{name}")
