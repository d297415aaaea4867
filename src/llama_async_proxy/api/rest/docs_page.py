"""The API's documentation as one HTML page made of the OpenAPI document: no script, nothing fetched."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""Content-Security-Policy of the page: one inline style, and nothing that runs or is fetched."""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: API</title><style>
:root{{color-scheme:light dark;--line:color-mix(in srgb,currentColor 20%,transparent)}}
body{{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}
h2{{margin-top:2.5rem;text-transform:capitalize}}
summary{{cursor:pointer;padding:.4rem 0}}
code,pre{{font-family:ui-monospace,monospace}}
.m{{display:inline-block;min-width:4.5rem;font-weight:600}}
details{{border-bottom:1px solid var(--line)}}
pre{{overflow:auto;padding:.8rem;border:1px solid var(--line);border-radius:6px}}
table{{border-collapse:collapse}}
td,th{{text-align:left;padding:.2rem 1rem .2rem 0;vertical-align:top}}
</style></head><body><main><h1>{title} {version}</h1>
<p>{summary}</p><p>The same as an <a href="openapi.json">OpenAPI document</a>. Inference is at <code>/v1</code>,
as with OpenAI.</p>{body}</main></body></html>
"""


def docs_page(document: Mapping[str, Any]) -> str:
    """The page for an OpenAPI document; its links are relative, so that it works under any prefix."""
    info = document["info"]
    return _PAGE.format(
        title=escape(info["title"]),
        version=escape(info["version"]),
        summary=escape(info.get("summary", "")),
        body="".join(_sections(document)),
    )


def _sections(document: Mapping[str, Any]) -> Iterator[str]:
    schemas = document["components"]["schemas"]
    by_tag: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            by_tag.setdefault(operation["tags"][0], []).append(_operation(method, path, operation))
    for tag, parts in by_tag.items():
        yield f"<h2>{escape(tag)}</h2>{''.join(parts)}"
    yield "<h2>Schemas</h2>" + "".join(_schema(name, schema) for name, schema in sorted(schemas.items()))


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    parts = [f"<p>{escape(operation.get('description', ''))}</p>"]
    if parameters := operation.get("parameters"):
        parts.append(_table(("Parameter", "In", ""), (_parameter(parameter) for parameter in parameters)))
    if body := operation.get("requestBody"):
        parts.append(f"<p>Body: {_content(body)}</p>")
    answers = ((status, _content(answer)) for status, answer in sorted(operation["responses"].items()))
    parts.append(_table(("Status", "Answer"), answers))
    head = f'<span class="m">{method.upper()}</span><code>{escape(path)}</code>'
    return f"<details><summary>{head}</summary>{''.join(parts)}</details>"


def _parameter(parameter: Mapping[str, Any]) -> tuple[str, str, str]:
    return f"<code>{escape(parameter['name'])}</code>", parameter["in"], escape(parameter.get("description", ""))


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    cells = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>{cells}</table>"


def _content(holder: Mapping[str, Any]) -> str:
    """Links to the schemas of a body."""
    schema = holder.get("content", {}).get("application/json", {}).get("schema", {})
    choices = schema.get("anyOf", [schema])
    names = [choice["$ref"].rpartition("/")[2] for choice in choices if "$ref" in choice]
    return " or ".join(f'<a href="#{escape(name)}">{escape(name)}</a>' for name in names)


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    text = escape(json.dumps(schema, indent=2))
    return f'<h3 id="{escape(name)}">{escape(name)}</h3><pre tabindex="0">{text}</pre>'
