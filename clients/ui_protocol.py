"""TypeScript types of the web UI's namespace, `/ui`: its topics, and every operation that it can call.

`python clients/generate.py` writes them into frontend/src/live/protocol.gen.ts. An interface is named like the Python
class it is made of and has that class's field names; what a field means is described there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import NODEFAULT, inspect

from llama_async_proxy.api.ui.schema import TOPICS, CallError
from llama_async_proxy.operations.table import OPERATIONS

_HEAD = """\
// Messages of the namespace `/ui`. Made by clients/generate.py from src/llama_async_proxy/api/ui/schema.py and the
// records of the operations; `make docs` makes this file anew. null means "not known".
"""
_FOOT = """
export type Topic = keyof Topics;

/** All of a topic at one moment; `seq` numbers the topic's messages. */
export interface Snapshot<T extends Topic = Topic> {
  topic: T;
  seq: number;
  data: Topics[T]["data"];
}

/** Changes since the message before; `dropped` counts the items that this client was too slow to get. */
export interface Delta<T extends Topic = Topic> {
  topic: T;
  seq: number;
  items: Topics[T]["item"][];
  dropped: number;
}

export type OperationName = keyof Operations;

export type CallResult<O extends OperationName> =
  | { ok: true; data: Operations[O]["output"] }
  | { ok: false; error: CallError };
"""
_RECORDS = (inspect.StructType, inspect.DataclassType, inspect.NamedTupleType, inspect.TypedDictType)
_LISTS = (inspect.ListType, inspect.VarTupleType, inspect.SetType, inspect.FrozenSetType, inspect.CollectionType)
_SIMPLE = {
    inspect.NoneType: "null",
    inspect.BoolType: "boolean",
    inspect.IntType: "number",
    inspect.FloatType: "number",
    inspect.StrType: "string",
    inspect.BytesType: "string",
    inspect.CustomType: "string",  # pathlib.Path
}


def protocol() -> str:
    """The text of protocol.gen.ts. Raises ValueError when two classes in it have one name."""
    given = [inspect.type_info(operation.input) for operation in OPERATIONS.values()]
    returned = [inspect.type_info(operation.output) for operation in OPERATIONS.values()]
    sent = [inspect.type_info(kind) for topic in TOPICS.values() for kind in topic]
    types = _Types(given, [*returned, *sent, inspect.type_info(CallError)])
    topics = (
        f"  {_topic(name)}: {{ data: {types.sent(data)}; item: {types.sent(item)} }};\n"
        for name, (data, item) in zip(TOPICS, zip(sent[::2], sent[1::2], strict=True), strict=True)
    )
    operations = (
        f"  {json.dumps(name)}: {{ input: {types.accepted(takes)}; output: {types.sent(gives)} }};\n"
        for name, takes, gives in zip(OPERATIONS, given, returned, strict=True)
    )
    return (
        f"{_HEAD}\n{types.declarations()}\n"
        f"/** Data of a snapshot and one item of a delta, by topic. */\n"
        f"export interface Topics {{\n{''.join(topics)}}}\n\n"
        f"/** Input and output, by operation. */\n"
        f"export interface Operations {{\n{''.join(operations)}}}\n{_FOOT}"
    )


def _topic(name: str) -> str:
    return f"[topic: `{name.replace('ID', '${number}')}`]" if "ID" in name else name


class _Types:
    """TypeScript of Python types. What the service accepts may leave out fields with a default; what it sends is whole.

    A class that is both accepted and sent, and has such fields, is declared twice: `Sampling` and `SamplingInput`.
    """

    def __init__(self, accepted: Iterable[inspect.Type], sent: Iterable[inspect.Type]) -> None:
        self._accepted = dict(_named(accepted))
        self._sent = dict(_named(sent))
        for name in self._accepted.keys() & self._sent.keys():
            _check_same(self._accepted[name], self._sent[name])

    def accepted(self, node: inspect.Type) -> str:
        return self._text(node, is_accepted=True)

    def sent(self, node: inspect.Type) -> str:
        return self._text(node, is_accepted=False)

    def declarations(self) -> str:
        found = {node.cls.__name__: self._declaration(node, is_accepted=False) for node in self._sent.values()}
        for node in self._accepted.values():
            found[self._name(node, is_accepted=True)] = self._declaration(node, is_accepted=True)
        return "\n".join(text for _, text in sorted(found.items()))

    def _declaration(self, node: Any, *, is_accepted: bool) -> str:
        name = self._name(node, is_accepted=is_accepted)
        if isinstance(node, inspect.EnumType):
            return f"export type {name} = {' | '.join(json.dumps(member.value) for member in node.cls)};\n"
        tag = getattr(node, "tag", None)
        lines = [f"  {node.tag_field}: {json.dumps(tag)};\n"] if tag is not None else []
        for field in node.fields:
            is_optional = not field.required if is_accepted else _may_be_absent(field)
            kind = self._text(field.type, is_accepted=is_accepted)
            lines.append(f"  {getattr(field, 'encode_name', field.name)}{'?' if is_optional else ''}: {kind};\n")
        if not lines:
            return f"export type {name} = Record<string, never>;\n"
        return f"export interface {name} {{\n{''.join(lines)}}}\n"

    def _name(self, node: Any, *, is_accepted: bool) -> str:
        name: str = node.cls.__name__
        return f"{name}Input" if is_accepted and name in self._sent and _has_defaults(node) else name

    def _text(self, node: Any, *, is_accepted: bool) -> str:
        def text(inner: inspect.Type) -> str:
            return self._text(inner, is_accepted=is_accepted)

        if isinstance(node, (*_RECORDS, inspect.EnumType)):
            return self._name(node, is_accepted=is_accepted)
        if isinstance(node, inspect.UnionType):
            return " | ".join(dict.fromkeys(map(text, node.types)))
        if isinstance(node, inspect.LiteralType):
            return " | ".join(map(json.dumps, node.values))
        if isinstance(node, _LISTS):
            item = text(node.item_type)
            return f"({item})[]" if " | " in item else f"{item}[]"
        if isinstance(node, inspect.TupleType):
            return f"[{', '.join(map(text, node.item_types))}]"
        if isinstance(node, inspect.DictType):
            return f"Record<{text(node.key_type)}, {text(node.value_type)}>"
        if isinstance(node, inspect.CustomType) and node.cls is object:
            return "unknown"
        return _SIMPLE.get(type(node), "unknown")


def _named(nodes: Iterable[inspect.Type]) -> Iterator[tuple[str, Any]]:
    """The records and enumerations that these types lead to, by name."""
    found: dict[str, Any] = {}
    open_: list[Any] = list(nodes)
    while open_:
        node = open_.pop()
        if isinstance(node, (*_RECORDS, inspect.EnumType)):
            known = found.setdefault(node.cls.__name__, node)
            _check_same(known, node)
            if known is not node:
                continue
        open_ += _parts(node)
    yield from found.items()


def _check_same(one: Any, other: Any) -> None:
    if one.cls is not other.cls:
        raise ValueError(f"two classes on /ui have one name: {one.cls!r} and {other.cls!r}")


def _parts(node: Any) -> list[Any]:
    if isinstance(node, _RECORDS):
        return [field.type for field in node.fields]
    single = (getattr(node, name, None) for name in ("item_type", "key_type", "value_type"))
    return [
        *(part for part in single if part is not None),
        *getattr(node, "types", ()),
        *getattr(node, "item_types", ()),
    ]


def _may_be_absent(field: inspect.Field) -> bool:
    """True for a field that msgspec leaves out while it is UNSET, which is no default in its eyes."""
    return not field.required and field.default is NODEFAULT and field.default_factory is NODEFAULT


def _has_defaults(node: Any) -> bool:
    fields = getattr(node, "fields", ())
    return any(not field.required or any(map(_has_defaults, _within(field.type))) for field in fields)


def _within(node: Any) -> list[Any]:
    """The records right inside a type."""
    if isinstance(node, _RECORDS):
        return [node]
    return [record for part in _parts(node) for record in _within(part)]
