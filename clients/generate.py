"""Writes what the clients know of the service, and the service of the web UI.

The Python and the TypeScript client get the shapes and operations of REST, the web UI gets those of its namespace, and
the service gets the addresses of the UI's pages.

`python clients/generate.py` rewrites the files; tests/test_clients.py fails when one is stale.
"""

from __future__ import annotations

import json
import keyword
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ui_protocol import protocol

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / "src/llama_async_proxy/client/api.py"
TYPESCRIPT = ROOT / "clients/typescript/src/api.ts"
PROTOCOL = ROOT / "frontend/src/live/protocol.gen.ts"
PAGES = ROOT / "src/llama_async_proxy/api/ui/pages.py"
PAGE_TABLE = ROOT / "frontend/src/app/pages.ts"
_ENVELOPE = {"success", "data", "timestamp", "message"}
Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Parameter:
    name: str
    place: str
    schema: Schema
    is_required: bool


@dataclass(frozen=True)
class Operation:
    name: str
    method: str
    path: str
    about: str
    parameters: tuple[Parameter, ...]
    body: Schema | None
    is_body_required: bool
    result: Schema | None
    """None: bytes."""
    is_wrapped: bool


class Document:
    """An OpenAPI document with its parts in the order in which they are declared."""

    def __init__(self, tree: Schema) -> None:
        self.schemas: Mapping[str, Schema] = tree["components"]["schemas"]
        self.operations = tuple(
            self._operation(path, method, part)
            for path, methods in tree["paths"].items()
            for method, part in methods.items()
        )

    def _operation(self, path: str, method: str, part: Schema) -> Operation:
        success = next(answer for status, answer in part["responses"].items() if status.startswith("2"))
        result = success.get("content", {}).get("application/json", {}).get("schema")
        inner = self._data(result)
        body = part.get("requestBody")
        return Operation(
            name=part["operationId"],
            method=method.upper(),
            path=path,
            about=part["description"],
            parameters=tuple(
                Parameter(p["name"], p["in"], p["schema"], p.get("required", False)) for p in part.get("parameters", ())
            ),
            body=body and body["content"]["application/json"]["schema"],
            is_body_required=bool(body and body.get("required")),
            result=result if inner is None else inner,
            is_wrapped=inner is not None,
        )

    def _data(self, result: Schema | None) -> Schema | None:
        """The schema of an envelope's content, when there is nothing else in it."""
        shape = self.schemas[_name(result)] if result and "$ref" in result else {}
        fields = shape.get("properties", {})
        return fields["data"] if "data" in fields and fields.keys() <= _ENVELOPE else None

    def shapes(self) -> Iterator[tuple[str, Schema]]:
        """Every named schema that some operation takes or gives, by name."""
        wanted: set[str] = set()
        open_ = [s for op in self.operations for s in (op.body, op.result, *(p.schema for p in op.parameters)) if s]
        while open_:
            names = set(_references(open_.pop())) - wanted
            wanted |= names
            open_ += [self.schemas[name] for name in names]
        for name in sorted(wanted):
            yield name, self.schemas[name]


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield _name(schema)
        for part in schema.values():
            yield from _references(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from _references(part)


def _name(reference: Schema) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


def _class(name: str) -> str:
    return re.sub(r"\W|_", "", name)


def _about(schema: Schema) -> str:
    return " ".join(str(schema.get("description", "")).split())


# --- Python -----------------------------------------------------------------------------------------------------------

_PYTHON_NAMES = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "null": "None",
    "object": "Mapping[str, object]",
}


def python(document: Document) -> str:
    head = '''"""Every operation of the REST interface, typed. Made by clients/generate.py from the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NotRequired, TypedDict

from llama_async_proxy.client.exchange import Request, path_of
'''
    shapes = "\n\n".join(_python_shape(name, schema) for name, schema in document.shapes())
    functions = "\n\n".join(_python_function(operation) for operation in document.operations)
    return _formatted(f"{head}\n{shapes}\n\n{functions}")


def _python_type(schema: Schema) -> str:
    if "$ref" in schema:
        return _class(_name(schema))
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " | ".join(dict.fromkeys(map(_python_type, choices)))
    if "const" in schema or "enum" in schema:
        return f"Literal[{', '.join(map(repr, schema.get('enum') or [schema['const']]))}]"
    if schema.get("type") == "array":
        return f"list[{_python_type(schema.get('items', {}))}]"
    extra = schema.get("additionalProperties")
    if schema.get("type") == "object" and isinstance(extra, dict):
        return f"dict[str, {_python_type(extra)}]"
    return _PYTHON_NAMES.get(schema.get("type", ""), "object")


def _python_shape(name: str, schema: Schema) -> str:
    if "properties" not in schema:
        return f"{_class(name)} = {_python_type(schema)}\n"
    required = schema.get("required", ())
    types = {
        field: _python_type(part) if field in required else f"NotRequired[{_python_type(part)}]"
        for field, part in schema["properties"].items()
    }
    if not all(field.isidentifier() and not keyword.iskeyword(field) for field in types):
        items = ", ".join(f'"{field}": "{kind}"' for field, kind in types.items())
        return f'{_class(name)} = TypedDict("{_class(name)}", {{{items}}})\n'
    lines = [f'"""{_about(schema)}"""\n'] if _about(schema) else []
    for field, kind in types.items():
        lines.append(f"{field}: {kind}")
        if about := _about(schema["properties"][field]):
            lines.append(_docstring(about))
    return f"class {_class(name)}(TypedDict):\n" + textwrap.indent("\n".join(lines) or "pass", "    ") + "\n"


def _docstring(text: str) -> str:
    return '"""' + "\n".join(textwrap.wrap(text.replace('"', "'"), 100)) + '"""'


def _python_function(operation: Operation) -> str:
    required = [f"{_variable(p)}: {_python_type(p.schema)}" for p in operation.parameters if p.place == "path"]
    optional = []
    for p in operation.parameters:
        if p.place != "path" and p.is_required:
            required.append(f"{_variable(p)}: {_python_type(p.schema)}")
        elif p.place != "path":
            optional.append(f"{_variable(p)}: {_optional(_python_type(p.schema))} = None")
    if operation.body:
        kind = _python_type(operation.body)
        if operation.is_body_required:
            required.append(f"body: {kind}")
        else:
            required.append(f"body: {_optional(kind)} = None")
    star = ["*"] if optional else []
    result = "bytes" if operation.result is None else _python_type(operation.result)
    parts = [f'"{operation.method}"', _python_path(operation)]
    for place, name in (("query", "query"), ("header", "headers")):
        if pairs := [f'"{p.name}": {_variable(p)}' for p in operation.parameters if p.place == place]:
            parts.append(f"{name}={{{', '.join(pairs)}}}")
    parts += ["body=body"] if operation.body else []
    parts += ["is_wrapped=True"] if operation.is_wrapped else []
    about = _docstring(" ".join(operation.about.split()))
    return (
        f"def {operation.name}({', '.join([*required, *star, *optional])}) -> Request[{result}]:\n"
        f"    {about}\n    return Request({', '.join(parts)})\n"
    )


def _optional(kind: str) -> str:
    return kind if "None" in kind.split(" | ") else f"{kind} | None"


def _variable(parameter: Parameter) -> str:
    return parameter.name.replace("-", "_").lower()


def _python_path(operation: Operation) -> str:
    names = [p.name for p in operation.parameters if p.place == "path"]
    if not names:
        return f'"{operation.path}"'
    return f'path_of("{operation.path}", {", ".join(f"{name}={name}" for name in names)})'


def _formatted(text: str) -> str:
    ruff = [str(Path(sys.executable).with_name("ruff")), "format", "-q", "--stdin-filename", str(PYTHON), "-"]
    return subprocess.run(ruff, input=text, capture_output=True, text=True, check=True, cwd=ROOT).stdout


# --- TypeScript -------------------------------------------------------------------------------------------------------

_TYPESCRIPT_NAMES = {
    "string": "string",
    "integer": "number",
    "number": "number",
    "boolean": "boolean",
    "null": "null",
    "object": "Record<string, unknown>",
}


def typescript(document: Document) -> str:
    head = """// Every operation of the REST interface, typed. Made by clients/generate.py from the OpenAPI document.

import { pathOf, type Request } from "./request.js";
"""
    shapes = "\n".join(_typescript_shape(name, schema) for name, schema in document.shapes())
    functions = "\n".join(_typescript_function(operation) for operation in document.operations)
    return f"{head}\n{shapes}\n{functions}"


def _typescript_type(schema: Schema) -> str:
    if "$ref" in schema:
        return _class(_name(schema))
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " | ".join(dict.fromkeys(map(_typescript_type, choices)))
    if "const" in schema or "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema.get("enum") or [schema["const"]])
    if schema.get("type") == "array":
        least, most = schema.get("minItems"), schema.get("maxItems")
        item = _typescript_type(schema.get("items", {}))
        if least is not None and least == most:
            return f"[{', '.join([item] * least)}]"
        return f"({item})[]" if " | " in item else f"{item}[]"
    extra = schema.get("additionalProperties")
    if schema.get("type") == "object" and isinstance(extra, dict):
        return f"Record<string, {_typescript_type(extra)}>"
    return _TYPESCRIPT_NAMES.get(schema.get("type", ""), "unknown")


def _typescript_shape(name: str, schema: Schema) -> str:
    about = f"/** {_about(schema)} */\n" if _about(schema) else ""
    if "properties" not in schema:
        return f"{about}export type {_class(name)} = {_typescript_type(schema)};\n"
    required = schema.get("required", ())
    lines = []
    for field, part in schema["properties"].items():
        if text := _about(part):
            lines.append(f"  /** {text} */")
        key = field if field.isidentifier() else json.dumps(field)
        lines.append(f"  {key}{'' if field in required else '?'}: {_typescript_type(part)};")
    return f"{about}export interface {_class(name)} {{\n" + "\n".join(lines) + "\n}\n"


def _typescript_function(operation: Operation) -> str:
    path = [p for p in operation.parameters if p.place == "path"]
    arguments = [f"{_camel(p.name)}: {_typescript_type(p.schema)}" for p in path]
    if operation.body:
        mark = "" if operation.is_body_required else "?"
        arguments.append(f"body{mark}: {_typescript_type(operation.body)}")
    parts = [f'method: "{operation.method}"', f"path: {_typescript_path(operation.path, path)}"]
    others = [p for p in operation.parameters if p.place != "path"]
    if others:
        fields = "; ".join(
            f"{_camel(p.name)}{'' if p.is_required else '?'}: {_typescript_type(p.schema)}" for p in others
        )
        needed = any(p.is_required for p in others)
        arguments.append(f"options: {{ {fields} }}{'' if needed else ' = {}'}")
    for place, name in (("query", "query"), ("header", "headers")):
        pairs = [f"{json.dumps(p.name)}: options.{_camel(p.name)}" for p in others if p.place == place]
        parts += [f"{name}: {{ {', '.join(pairs)} }}"] if pairs else []
    parts += ["body"] if operation.body else []
    parts += ["isWrapped: true"] if operation.is_wrapped else []
    result = "Blob" if operation.result is None else _typescript_type(operation.result)
    return (
        f"/** {' '.join(operation.about.split())} */\n"
        f"export const {_camel(operation.name)} = ({', '.join(arguments)}): Request<{result}> => "
        f"({{ {', '.join(parts)} }});\n"
    )


def _typescript_path(template: str, parameters: list[Parameter]) -> str:
    if not parameters:
        return json.dumps(template)
    return f"pathOf({json.dumps(template)}, {{ {', '.join(f'{p.name}: {_camel(p.name)}' for p in parameters)} }})"


def _camel(name: str) -> str:
    first, *others = re.split(r"[-_]", name)
    return first.lower() + "".join(part.capitalize() for part in others)


# --- files ------------------------------------------------------------------------------------------------------------


def document() -> Document:
    return Document(json.loads((ROOT / "docs/openapi.json").read_text()))


def pages() -> str:
    """The module that tells the service which addresses are pages of the web UI."""
    rows = re.findall(r"^    paths: \[(.*)\],$", PAGE_TABLE.read_text(), re.MULTILINE)
    paths = [path for row in rows for path in json.loads(f"[{row}]")]
    lines = "".join(f"        {json.dumps(path)},\n" for path in paths)
    return f'''"""Addresses of the web UI's pages, made by clients/generate.py from its pages.ts; `:id` is a number."""

from __future__ import annotations

PAGES = frozenset(
    {{
{lines}    }}
)
'''


FILES: Mapping[Path, Callable[[], str]] = {
    PYTHON: lambda: python(document()),
    TYPESCRIPT: lambda: typescript(document()),
    PROTOCOL: protocol,
    PAGES: pages,
}


if __name__ == "__main__":
    for path, make in FILES.items():
        path.write_text(make())
        print(f"wrote {path.relative_to(ROOT)}")
