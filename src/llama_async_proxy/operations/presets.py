"""Presets as files: list, read, save, create, delete, copy, restore, compare."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path

from msgspec import Struct

from llama_async_proxy.errors import Conflict, InvalidInput, NotFound, PresetInvalid, ServiceError
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.operation import Effect, operation
from llama_async_proxy.presets.catalogue import Catalogue
from llama_async_proxy.presets.difference import ValueChange, text_difference, value_changes
from llama_async_proxy.presets.editing import Config, typed_config, with_config
from llama_async_proxy.presets.inheritance import flattened
from llama_async_proxy.presets.ini import Document, IniError
from llama_async_proxy.presets.templates import DEFAULT_NAME, DEFAULT_TEXT, TEMPLATES
from llama_async_proxy.presets.validation import MAX_PROBLEMS, Problem, Verdict, check, check_text, checked_name
from llama_async_proxy.records.options import OptionValue
from llama_async_proxy.store.presets import PresetFile, PresetVersion


class PresetSummary(Struct, frozen=True):
    name: str
    path: str
    file: str
    """The file's name, with `.ini`."""
    title: str
    """What people call it: from the comment `; name:`, else the name."""
    description: str
    sections: Mapping[str, Mapping[str, str]]
    """Values as written, by section and key; empty when the file cannot be read as a preset."""
    size_bytes: int
    modified_at_ms: int
    is_active: bool
    """The engine runs with it."""
    problem: str | None = None
    """Why the file is no preset."""


class PresetView(Struct, frozen=True):
    summary: PresetSummary
    content: str
    """The file's text."""
    values: Mapping[str, Mapping[str, OptionValue]]
    """What the sections say, typed, by section and key as written."""
    verdict: Verdict


class ListPresets(Struct, frozen=True):
    pass


class PresetList(Struct, frozen=True):
    presets: tuple[PresetSummary, ...]
    active: str | None
    """Name of the preset the engine runs with."""
    problem: str | None
    """Why the remembered preset is not in force."""


class ReadPreset(Struct, frozen=True):
    name: str
    """With or without `.ini`, here and in everything below."""


class SavePreset(Struct, frozen=True):
    """Creates or replaces. One of `config` (sections and keys; comments in the file are kept) and `content` (text)."""

    name: str
    config: Config | None = None
    content: str | None = None


class CreatePreset(Struct, frozen=True):
    name: str
    description: str | None = None
    template: str | None = None
    """Name of one of the templates; None: an empty preset."""


class DeletePreset(Struct, frozen=True):
    name: str


class DeletedPreset(Struct, frozen=True):
    name: str


class ClonePreset(Struct, frozen=True):
    name: str
    new_name: str


class RenamePreset(Struct, frozen=True):
    name: str
    new_name: str


class ImportPreset(Struct, frozen=True):
    name: str
    content: str
    replace: bool = False
    """False: a preset of that name is a conflict."""


class ExportPreset(Struct, frozen=True):
    name: str
    is_flat: bool = False
    """True: as llama-server reads it, groups written out."""


class ExportedPreset(Struct, frozen=True):
    file: str
    content: str


class ValidatePreset(Struct, frozen=True):
    """One of `config` and `content`."""

    config: Config | None = None
    content: str | None = None


class Validation(Struct, frozen=True):
    verdict: Verdict

    @property
    def is_valid(self) -> bool:
        return not self.verdict.errors


class ListPresetVersions(Struct, frozen=True):
    name: str


class PresetVersions(Struct, frozen=True):
    name: str
    versions: tuple[PresetVersion, ...]
    """Newest first, at most ten; also of a preset that was deleted."""


class RestorePreset(Struct, frozen=True):
    name: str
    version: int


class DiffPresets(Struct, frozen=True):
    """From a preset to another, or to an earlier version of itself; exactly one of `other` and `version`."""

    name: str
    other: str | None = None
    version: int | None = None


class PresetDiff(Struct, frozen=True):
    changes: tuple[ValueChange, ...]
    text: str
    """As `diff -u` prints it."""


class ListTemplates(Struct, frozen=True):
    pass


class Template(Struct, frozen=True):
    name: str
    title: str
    description: str
    content: str


class TemplateList(Struct, frozen=True):
    templates: tuple[Template, ...]


# --- reading --------------------------------------------------------------------------------------


@operation("presets.list", Effect.READ)
async def list_presets(context: Context, _: ListPresets) -> PresetList:
    def read() -> list[tuple[PresetFile, str | ServiceError]]:
        return [(file, _text_or_error(context, file.name)) for file in context.store.presets.all()]

    found = await asyncio.to_thread(read)
    active = context.active_preset
    summaries = tuple(summary(context, file, text) for file, text in found)
    return PresetList(summaries, active.name, active.problem)


@operation("presets.read", Effect.READ)
async def read_preset(context: Context, request: ReadPreset) -> PresetView:
    """Of a file that is no preset, too: its `summary.problem` and `verdict` say why."""
    return await view(context, checked_name(request.name))


@operation("presets.export", Effect.READ)
async def export_preset(context: Context, request: ExportPreset) -> ExportedPreset:
    name = checked_name(request.name)
    text = await asyncio.to_thread(context.store.presets.read, name)
    if request.is_flat:
        document = parsed(name, text)
        catalogue = await context.active_preset.catalogue()
        try:
            text = (await asyncio.to_thread(flattened, document, catalogue)).render()
        except IniError as exc:
            raise PresetInvalid(name, (str(exc),)) from exc
    return ExportedPreset(f"{name}.ini", text)


@operation("presets.validate", Effect.READ)
async def validate_preset(context: Context, request: ValidatePreset) -> Validation:
    """Nothing is stored. A line that may not come over the network is an error, though a file may hold it.

    Raises InvalidInput when there is not just one of config and content.
    """
    catalogue = await context.active_preset.catalogue()
    if (request.config is None) is (request.content is None):
        raise InvalidInput("config", "give either config or content")
    if request.content is not None:
        verdict = await asyncio.to_thread(check_text, request.content, catalogue)
        try:
            document = await asyncio.to_thread(Document.parse, request.content)
        except IniError:
            return Validation(verdict)  # The verdict says where it cannot be read.
    else:
        try:
            document = await asyncio.to_thread(with_config, Document(), request.config or {}, catalogue)
        except IniError as exc:
            return Validation(Verdict((Problem(str(exc)),)))
        verdict = await asyncio.to_thread(check, document, catalogue)
    return Validation(await asyncio.to_thread(_with_owner_problems, context, document, verdict, catalogue))


def _with_owner_problems(context: Context, document: Document, verdict: Verdict, catalogue: Catalogue) -> Verdict:
    """The verdict with the lines that may not come over the network."""
    found = islice(context.planner.policy.preset_problems(document, None, catalogue), MAX_PROBLEMS)
    missing = (
        Problem(f"there is no file {entry.value} (yet)", section.name, entry.key, entry.line, entry.column)
        for section in document.sections()
        for entry in section.entries
        if entry.key == "model" and Path(entry.value).is_absolute() and not Path(entry.value).exists()
    )
    return Verdict((*verdict.errors, *found), (*verdict.warnings, *islice(missing, MAX_PROBLEMS)))


@operation("presets.versions", Effect.READ)
async def list_preset_versions(context: Context, request: ListPresetVersions) -> PresetVersions:
    """Raises PresetNotFound when there neither is nor was one."""
    name = checked_name(request.name)
    versions = await asyncio.to_thread(context.store.presets.versions, name)
    if not versions:
        await asyncio.to_thread(context.store.presets.get, name)
    return PresetVersions(name, versions)


@operation("presets.diff", Effect.READ)
async def diff_presets(context: Context, request: DiffPresets) -> PresetDiff:
    name, files = checked_name(request.name), context.store.presets
    if (request.other is None) is (request.version is None):
        raise InvalidInput("other", "give either another preset or a version")
    before = await asyncio.to_thread(files.read, name)
    if request.other is not None:
        other = checked_name(request.other, "other")
        after, label = await asyncio.to_thread(files.read, other), f"{other}.ini"
    else:
        version = request.version or 0
        after, label = await asyncio.to_thread(files.read_version, name, version), f"{name}.ini version {version}"
    changes = value_changes(parsed(name, before), parsed(label, after))
    return PresetDiff(changes, await asyncio.to_thread(text_difference, before, after, (f"{name}.ini", label)))


@operation("presets.templates", Effect.READ)
async def list_templates(_context: Context, _: ListTemplates) -> TemplateList:
    return TemplateList(tuple(_template(name, text) for name, text in TEMPLATES.items()))


def _template(name: str, text: str) -> Template:
    document = Document.parse(text)
    return Template(name, document.note("name") or name, document.note("description") or "", text)


# --- changing -------------------------------------------------------------------------------------


@operation("presets.save", Effect.MANAGE)
async def save_preset(context: Context, request: SavePreset) -> PresetView:
    """Raises PresetInvalid with everything the engine would refuse, PermissionDenied with every line that may not come
    over the network; then nothing has changed.
    """
    if (request.config is None) is (request.content is None):
        raise InvalidInput("config", "give either config or content")
    name = checked_name(request.name)
    catalogue = await context.active_preset.catalogue()

    def new_text(old: str | None) -> str:
        if request.content is not None:
            return request.content
        document = Document() if old is None else parsed(name, old)
        return with_config(document, request.config or {}, catalogue).render()

    return await write(context, name, new_text)


@operation("presets.create", Effect.MANAGE)
async def create_preset(context: Context, request: CreatePreset) -> PresetView:
    """Raises Conflict when there is one of that name, NotFound for an unknown template."""
    name = checked_name(request.name)
    if request.template is None:
        document = Document.parse("[*]\n").with_note("name", name)
    else:
        text = TEMPLATES.get(request.template)
        if text is None:
            known = ", ".join(TEMPLATES)
            raise NotFound(
                "template", request.template, f"There is no template {request.template!r}; there are {known}."
            )
        document = Document.parse(text)
    if request.description is not None:
        try:
            document = document.with_note("description", request.description.strip())
        except IniError as exc:
            raise InvalidInput("description", str(exc)) from exc
    return await _create(context, name, document.render())


@operation("presets.import", Effect.MANAGE)
async def import_preset(context: Context, request: ImportPreset) -> PresetView:
    """Raises PresetInvalid, and Conflict when there is one of that name that is not to be replaced."""
    name = checked_name(request.name)
    text = request.content.removeprefix("\ufeff")
    if request.replace:
        return await write(context, name, lambda _: text)
    return await _create(context, name, text)


@operation("presets.clone", Effect.MANAGE)
async def clone_preset(context: Context, request: ClonePreset) -> PresetView:
    text = await asyncio.to_thread(context.store.presets.read, checked_name(request.name))
    return await _create(context, checked_name(request.new_name, "newName"), text)


@operation("presets.delete", Effect.MANAGE)
async def delete_preset(context: Context, request: DeletePreset) -> DeletedPreset:
    """Its versions stay, so that it can be restored. Raises Conflict when the engine runs with it."""
    name = checked_name(request.name)
    if name == context.active_preset.name:
        raise Conflict(f"The engine runs with preset {name!r}; start another one, or none, first.")
    await asyncio.to_thread(context.store.presets.delete, name)
    return DeletedPreset(name)


@operation("presets.rename", Effect.MANAGE)
async def rename_preset(context: Context, request: RenamePreset) -> PresetView:
    name, new_name = checked_name(request.name), checked_name(request.new_name, "newName")
    await asyncio.to_thread(context.store.presets.rename, name, new_name)
    await context.active_preset.renamed(name, new_name)
    return await view(context, new_name)


@operation("presets.restore", Effect.MANAGE)
async def restore_preset(context: Context, request: RestorePreset) -> PresetView:
    """What is there now becomes a version itself."""
    name = checked_name(request.name)
    text = await asyncio.to_thread(context.store.presets.read_version, name, request.version)
    return await write(context, name, lambda _: text)


async def make_default_preset(context: Context) -> None:
    """At the first start: when there is no preset at all, and never was the default one."""
    files = context.store.presets

    def make() -> None:
        if not files.all() and not files.versions(DEFAULT_NAME):
            files.create(DEFAULT_NAME, DEFAULT_TEXT)

    await asyncio.to_thread(make)


# --- shared with operations on a preset's parts ---------------------------------------------------


async def write(context: Context, name: str, new_text: Callable[[str | None], str]) -> PresetView:
    """Replace a preset's text by what `new_text` makes of the present one (None: there is none), once it is valid.

    Raises PresetInvalid, PermissionDenied for a line that may not come over the network, and whatever `new_text`
    raises, an IniError as PresetInvalid; then nothing has changed.
    """
    catalogue = await context.active_preset.catalogue()

    def checked(old: str | None) -> str:
        try:
            new = new_text(old)
        except IniError as exc:
            raise PresetInvalid(name, (str(exc),)) from exc
        _require_permitted(context, name, new, old, catalogue)
        require_valid(name, new, catalogue)
        return new

    await asyncio.to_thread(context.store.presets.change, name, checked)
    await context.active_preset.changed(name)
    return await view(context, name)


async def view(context: Context, name: str) -> PresetView:
    def read() -> tuple[PresetFile, str]:
        return context.store.presets.get(name), context.store.presets.read(name)

    file, text = await asyncio.to_thread(read)
    catalogue = await context.active_preset.catalogue()
    verdict = await asyncio.to_thread(check_text, text, catalogue)
    try:
        values = typed_config(Document.parse(text), catalogue)
    except IniError:
        values = {}
    return PresetView(summary(context, file, text), text, values, verdict)


def summary(context: Context, file: PresetFile, text: str | ServiceError) -> PresetSummary:
    document, problem = Document(), None
    try:
        if isinstance(text, ServiceError):
            problem = text.message
        else:
            document = Document.parse(text)
    except IniError as exc:
        problem = str(exc)
    return PresetSummary(
        name=file.name,
        path=file.path,
        file=f"{file.name}.ini",
        title=document.note("name") or file.name,
        description=document.note("description") or "",
        sections={section.name: section.values() for section in document.sections()},
        size_bytes=file.size_bytes,
        modified_at_ms=file.modified_at_ms,
        is_active=file.name == context.active_preset.name,
        problem=problem,
    )


def parsed(name: str, text: str) -> Document:
    """Raises PresetInvalid with line and column."""
    try:
        return Document.parse(text)
    except IniError as exc:
        raise PresetInvalid(name, (str(exc),)) from exc


def require_valid(name: str, text: str, catalogue: Catalogue) -> None:
    """Raises PresetInvalid with everything the engine would refuse."""
    errors = check_text(text, catalogue).errors
    if errors:
        raise PresetInvalid(name, tuple(map(str, errors)))


def _require_permitted(context: Context, name: str, text: str, old: str | None, catalogue: Catalogue) -> None:
    """Raises PermissionDenied with the lines of `text` that may not come over the network; those of the file on disk,
    `old`, may stay. A text that is no preset has none: it is refused as such.
    """
    try:
        document = Document.parse(text)
    except IniError:
        return
    try:
        present = None if old is None else Document.parse(old)
    except IniError:
        present = None
    context.planner.policy.check_preset(name, document, present, catalogue)


async def _create(context: Context, name: str, text: str) -> PresetView:
    catalogue = await context.active_preset.catalogue()
    await asyncio.to_thread(_require_permitted, context, name, text, None, catalogue)
    require_valid(name, text, catalogue)
    await asyncio.to_thread(context.store.presets.create, name, text)
    await context.active_preset.changed(name)
    return await view(context, name)


def _text_or_error(context: Context, name: str) -> str | ServiceError:
    try:
        return context.store.presets.read(name)
    except ServiceError as exc:
        return exc
