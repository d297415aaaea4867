"""Presets as files: list, create, read, save, copy, compare, restore. Times are ISO 8601 in UTC, sizes bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import Query
from pydantic import Field

from llama_async_proxy.api.rest.routing import BODY, RestRoute, RouteTable, ServiceContext
from llama_async_proxy.api.rest.schema import CamelModel, Options, RestAnswer, StrictModel, Text
from llama_async_proxy.api.units import iso_time
from llama_async_proxy.operations import presets as preset_operations
from llama_async_proxy.operations.presets import (
    ClonePreset,
    CreatePreset,
    DeletePreset,
    DiffPresets,
    ExportPreset,
    ImportPreset,
    ListPresets,
    ListPresetVersions,
    ListTemplates,
    PresetDiff,
    PresetList,
    PresetSummary,
    PresetVersions,
    PresetView,
    ReadPreset,
    RenamePreset,
    RestorePreset,
    SavePreset,
    TemplateList,
    ValidatePreset,
    Validation,
)
from llama_async_proxy.presets.validation import Problem, ProblemKind

Config = dict[str, Options]
PresetText = Annotated[str, Field(description="The INI file's text.")]

# --- schema -----------------------------------------------------------------------------------------------------------


class NewPresetBody(StrictModel):
    name: Text
    description: Text | None = None
    template: Text | None = Field(None, description="Name of a template; absent: an empty preset.")


class PresetBody(StrictModel):
    """Either of the two."""

    config: Config | None = Field(None, description="Values by section and key. Comments in the file are kept.")
    content: PresetText | None = None


class ImportBody(StrictModel):
    name: Text
    content: PresetText
    replace: bool = Field(default=False, description="Replace a preset of that name.")


class NewNameBody(StrictModel):
    name: Text


class PresetInfo(CamelModel):
    name: str
    title: str
    description: str
    path: str
    file: str
    size: int
    modified_at: str
    is_active: bool = Field(description="The engine runs with it.")
    sections: dict[str, dict[str, str]] = Field(description="Values as written, by section and key.")
    problem: str | None = Field(None, description="Why the file is no preset.")


class Presets(StrictModel):
    presets: list[PresetInfo]
    active: str | None = None
    problem: str | None = Field(None, description="Why the chosen preset is not in force.")


class PresetProblem(StrictModel):
    message: str
    section: str | None = None
    key: str | None = None
    line: int | None = None
    column: int | None = None
    kind: ProblemKind = Field(
        ProblemKind.INVALID,
        description="invalid: the engine would refuse it. owner: only the machine's owner may say it, in the file.",
    )


class PresetDetails(PresetInfo):
    content: PresetText
    values: Config = Field(description="What the sections say, typed.")
    errors: list[PresetProblem]
    warnings: list[PresetProblem]


class PresetVerdict(StrictModel):
    valid: bool
    errors: list[PresetProblem]
    warnings: list[PresetProblem]


class PresetRemoved(StrictModel):
    name: str


class PresetFileText(StrictModel):
    file: str
    content: PresetText


class VersionInfo(CamelModel):
    id: int
    replaced_at: str
    size: int


class Versions(StrictModel):
    name: str
    versions: list[VersionInfo] = Field(description="Newest first.")


class Change(StrictModel):
    section: str
    key: str
    before: str | None = Field(None, description="Absent: it was not there.")
    after: str | None = None


class Difference(StrictModel):
    changes: list[Change]
    text: str = Field(description="As diff -u prints it.")


class TemplateInfo(StrictModel):
    name: str
    title: str
    description: str
    content: PresetText


class Templates(StrictModel):
    templates: list[TemplateInfo]


# --- mapping ----------------------------------------------------------------------------------------------------------


def _info(summary: PresetSummary) -> Mapping[str, object]:
    return {
        "name": summary.name,
        "title": summary.title,
        "description": summary.description,
        "path": summary.path,
        "file": summary.file,
        "size": summary.size_bytes,
        "modified_at": iso_time(summary.modified_at_ms),
        "is_active": summary.is_active,
        "sections": summary.sections,
        "problem": summary.problem,
    }


def preset_list(listed: PresetList) -> Presets:
    infos = [PresetInfo.model_validate(_info(summary)) for summary in listed.presets]
    return Presets(presets=infos, active=listed.active, problem=listed.problem)


def preset_details(view: PresetView) -> PresetDetails:
    return PresetDetails.model_validate(
        {
            **_info(view.summary),
            "content": view.content,
            "values": view.values,
            "errors": [_problem(problem) for problem in view.verdict.errors],
            "warnings": [_problem(problem) for problem in view.verdict.warnings],
        }
    )


def _problem(problem: Problem) -> PresetProblem:
    return PresetProblem(
        message=problem.message,
        section=problem.section or None,
        key=problem.key or None,
        line=problem.line or None,
        column=problem.column or None,
        kind=problem.kind,
    )


def preset_verdict(validation: Validation) -> PresetVerdict:
    return PresetVerdict(
        valid=validation.is_valid,
        errors=[_problem(problem) for problem in validation.verdict.errors],
        warnings=[_problem(problem) for problem in validation.verdict.warnings],
    )


def preset_versions(found: PresetVersions) -> Versions:
    versions = [VersionInfo(id=v.id, replaced_at=iso_time(v.id), size=v.size_bytes) for v in found.versions]
    return Versions(name=found.name, versions=versions)


def preset_difference(diff: PresetDiff) -> Difference:
    changes = [Change(section=c.section, key=c.key, before=c.before, after=c.after) for c in diff.changes]
    return Difference(changes=changes, text=diff.text)


def template_list(listed: TemplateList) -> Templates:
    return Templates(
        templates=[
            TemplateInfo(name=t.name, title=t.title, description=t.description, content=t.content)
            for t in listed.templates
        ]
    )


# --- routes -----------------------------------------------------------------------------------------------------------


async def list_presets(context: ServiceContext) -> RestAnswer[Presets]:
    """Every preset, and which of them the engine runs with."""
    return RestAnswer(data=preset_list(await preset_operations.list_presets(context, ListPresets())))


async def create_preset(context: ServiceContext, body: NewPresetBody) -> RestAnswer[PresetDetails]:
    """Make a preset, empty or from a template."""
    request = CreatePreset(body.name, body.description, body.template)
    return preset_answer(await preset_operations.create_preset(context, request), "Preset created")


async def read_preset(context: ServiceContext, name: str) -> RestAnswer[PresetDetails]:
    """One preset: its text, what it says, and what is wrong with it."""
    return preset_answer(await preset_operations.read_preset(context, ReadPreset(name)))


async def save_preset(context: ServiceContext, name: str, body: PresetBody) -> RestAnswer[PresetDetails]:
    """Make or replace a preset; what the engine would refuse changes nothing."""
    return preset_answer(
        await preset_operations.save_preset(context, SavePreset(name, body.config, body.content)), "Preset saved"
    )


async def delete_preset(context: ServiceContext, name: str) -> RestAnswer[PresetRemoved]:
    """Delete a preset. Its versions stay, so that it can be restored."""
    deleted = await preset_operations.delete_preset(context, DeletePreset(name))
    return RestAnswer(data=PresetRemoved(name=deleted.name), message="Preset deleted")


async def clone_preset(context: ServiceContext, name: str, body: NewNameBody) -> RestAnswer[PresetDetails]:
    """Copy a preset."""
    return preset_answer(await preset_operations.clone_preset(context, ClonePreset(name, body.name)), "Preset copied")


async def rename_preset(context: ServiceContext, name: str, body: NewNameBody) -> RestAnswer[PresetDetails]:
    """Rename a preset; its versions go with it."""
    return preset_answer(
        await preset_operations.rename_preset(context, RenamePreset(name, body.name)), "Preset renamed"
    )


async def import_preset(context: ServiceContext, body: ImportBody) -> RestAnswer[PresetDetails]:
    """Make a preset of the text of a file."""
    request = ImportPreset(body.name, body.content, body.replace)
    return preset_answer(await preset_operations.import_preset(context, request), "Preset imported")


async def export_preset(
    context: ServiceContext,
    name: str,
    flat: Annotated[bool, Query(description="As llama-server reads it: groups written out.")] = False,
) -> RestAnswer[PresetFileText]:
    """A preset's file."""
    exported = await preset_operations.export_preset(context, ExportPreset(name, flat))
    return RestAnswer(data=PresetFileText(file=exported.file, content=exported.content))


async def validate_preset(context: ServiceContext, body: PresetBody) -> RestAnswer[PresetVerdict]:
    """What the engine would refuse. Nothing is stored."""
    request = ValidatePreset(body.config, body.content)
    return RestAnswer(data=preset_verdict(await preset_operations.validate_preset(context, request)))


async def list_preset_versions(context: ServiceContext, name: str) -> RestAnswer[Versions]:
    """Earlier texts of a preset, at most ten; of a deleted one, too."""
    return RestAnswer(
        data=preset_versions(await preset_operations.list_preset_versions(context, ListPresetVersions(name)))
    )


async def restore_preset(context: ServiceContext, name: str, version: int) -> RestAnswer[PresetDetails]:
    """Make an earlier text the present one."""
    return preset_answer(
        await preset_operations.restore_preset(context, RestorePreset(name, version)), "Preset restored"
    )


async def diff_presets(
    context: ServiceContext, name: str, other: str | None = None, version: int | None = None
) -> RestAnswer[Difference]:
    """What changes from a preset to another one, or to an earlier version of itself."""
    return RestAnswer(
        data=preset_difference(await preset_operations.diff_presets(context, DiffPresets(name, other, version)))
    )


async def list_preset_templates(context: ServiceContext) -> RestAnswer[Templates]:
    """Presets to begin with."""
    return RestAnswer(data=template_list(await preset_operations.list_templates(context, ListTemplates())))


def preset_answer(view: PresetView, message: str | None = None) -> RestAnswer[PresetDetails]:
    return RestAnswer(data=preset_details(view), message=message)


PRESET = RestAnswer[PresetDetails]
READ_ERRORS = (400, 403, 404, 503)
WRITE_ERRORS = (*BODY, 403, 404, 409, 503)
_PRESETS = "/api/presets"
_PRESET_PATH = _PRESETS + "/{name}"

TABLES = (
    RouteTable(
        "presets",
        (
            RestRoute("GET", _PRESETS, list_presets, RestAnswer[Presets], (403, 503)),
            RestRoute("POST", _PRESETS, create_preset, PRESET, WRITE_ERRORS),
            RestRoute("GET", "/api/preset-templates", list_preset_templates, RestAnswer[Templates]),
            RestRoute("POST", "/api/preset-validation", validate_preset, RestAnswer[PresetVerdict], (*BODY, 503)),
            RestRoute("POST", "/api/preset-import", import_preset, PRESET, WRITE_ERRORS),
            RestRoute("GET", _PRESET_PATH, read_preset, PRESET, READ_ERRORS),
            RestRoute("PUT", _PRESET_PATH, save_preset, PRESET, WRITE_ERRORS),
            RestRoute("DELETE", _PRESET_PATH, delete_preset, RestAnswer[PresetRemoved], (400, 403, 404, 409, 503)),
            RestRoute("POST", _PRESET_PATH + "/clone", clone_preset, PRESET, WRITE_ERRORS),
            RestRoute("POST", _PRESET_PATH + "/rename", rename_preset, PRESET, WRITE_ERRORS),
            RestRoute("GET", _PRESET_PATH + "/export", export_preset, RestAnswer[PresetFileText], READ_ERRORS),
            RestRoute("GET", _PRESET_PATH + "/versions", list_preset_versions, RestAnswer[Versions], (400, 404)),
            RestRoute(
                "POST",
                _PRESET_PATH + "/versions/{version}/restore",
                restore_preset,
                PRESET,
                (400, 403, 404, 409, 503),
            ),
            RestRoute("GET", _PRESET_PATH + "/diff", diff_presets, RestAnswer[Difference], READ_ERRORS),
        ),
    ),
)
