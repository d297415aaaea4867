"""What travels on /api of presets and engine options. Times are ISO 8601 in UTC, sizes bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from llama_async_proxy.api.rest.schema import CamelWire, Option, Text, Wire
from llama_async_proxy.monitor.logtext import timestamp
from llama_async_proxy.operations.models_directory import ModelsDirectory
from llama_async_proxy.operations.options import EngineOptionsView, ModelOptions, OptionList
from llama_async_proxy.operations.preset_sections import PresetModels
from llama_async_proxy.operations.presets import (
    PresetDiff,
    PresetList,
    PresetSummary,
    PresetVersions,
    PresetView,
    TemplateList,
    Validation,
)
from llama_async_proxy.presets.inheritance import Inheritance
from llama_async_proxy.presets.validation import Problem, ProblemKind
from llama_async_proxy.records.options import EngineOption

Values = dict[str, Option]
Config = dict[str, Values]
Changes = dict[str, Option | None]
PresetText = Annotated[str, Field(description="The INI file's text.")]

# --- asked ------------------------------------------------------------------------------------------------------------


class NewPresetBody(Wire):
    name: Text
    description: Text | None = None
    template: Text | None = Field(None, description="Name of a template; absent: an empty preset.")


class PresetBody(Wire):
    """Either of the two."""

    config: Config | None = Field(None, description="Values by section and key. Comments in the file are kept.")
    content: PresetText | None = None


class ImportBody(Wire):
    name: Text
    content: PresetText
    replace: bool = Field(default=False, description="Replace a preset of that name.")


class NewNameBody(Wire):
    name: Text


class SectionBody(Wire):
    name: Text
    config: Values = Field(default={}, description="Values by key.")


class ChangesBody(Wire):
    config: Changes = Field(description="Values by key; null removes one, what is absent stays.")


class EngineOptionsBody(CamelWire):
    """What is absent stays."""

    max_models: int | None = Field(None, ge=0, le=1000)
    options: Changes = Field(default={}, description="By option; null removes one.")


class StartBody(EngineOptionsBody):
    preset: Text


# --- answered ---------------------------------------------------------------------------------------------------------


class PresetInfo(CamelWire):
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


class Presets(Wire):
    presets: list[PresetInfo]
    active: str | None = None
    problem: str | None = Field(None, description="Why the chosen preset is not in force.")


class Fault(Wire):
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
    errors: list[Fault]
    warnings: list[Fault]


class PresetVerdict(Wire):
    valid: bool
    errors: list[Fault]
    warnings: list[Fault]


class PresetRemoved(Wire):
    name: str


class PresetFileText(Wire):
    file: str
    content: PresetText


class VersionInfo(CamelWire):
    id: int
    replaced_at: str
    size: int


class Versions(Wire):
    name: str
    versions: list[VersionInfo] = Field(description="Newest first.")


class Change(Wire):
    section: str
    key: str
    before: str | None = Field(None, description="Absent: it was not there.")
    after: str | None = None


class Difference(Wire):
    changes: list[Change]
    text: str = Field(description="As diff -u prints it.")


class TemplateInfo(Wire):
    name: str
    title: str
    description: str
    content: PresetText


class Templates(Wire):
    templates: list[TemplateInfo]


class SectionInfo(Wire):
    name: str
    path: str | None = None
    group: str | None = None
    config: Values = Field(description="What the section itself says.")
    options: Values = Field(description="With what it inherits, by the options' own names.")
    sources: dict[str, str]


class Sections(Wire):
    name: str
    models: list[SectionInfo]


class Defaults(Wire):
    name: str
    config: Values


class Inherited(CamelWire):
    final_config: Values
    sources: dict[str, str] = Field(description="default, global, group or model, by the same keys.")
    inheritance_path: list[str]


class OptionInfo(CamelWire):
    name: str
    aliases: list[str]
    negative_aliases: list[str]
    env: list[str]
    type: str
    choices: list[str]
    default: str | None = None
    description: str
    is_removed: bool
    is_reserved: bool = Field(description="The service's own business; ignored in presets.")
    is_preset_only: bool = Field(description="For presets, not for loads.")


class OptionGroupInfo(Wire):
    name: str
    options: list[OptionInfo]


class Options(Wire):
    groups: list[OptionGroupInfo]
    binary: str | None = None
    version: str | None = None


class SetOption(Wire):
    name: str
    value: Option
    source: str


class OptionsOfModel(Wire):
    id: str
    section: str | None = Field(None, description="Of the preset in force that speaks of the model.")
    options: list[SetOption]


class OptionsOfEngine(CamelWire):
    max_models: int
    options: Values


class FileInfo(CamelWire):
    name: str
    path: str
    size: int
    vram: int | None = Field(
        None,
        description="Bytes it takes of GPU and main memory if it is loaded, else of the GPU with every layer there.",
    )
    estimated_vram: int | None = Field(None, description="The latter, loaded or not.")
    context_size: int | None = Field(None, description="Tokens that `estimatedVram` holds for.")


class DirectoryInfo(Wire):
    directory: str
    models: list[FileInfo]


# --- from what operations answer --------------------------------------------------------------------------------------


def _info(summary: PresetSummary) -> Mapping[str, object]:
    return {
        "name": summary.name,
        "title": summary.title,
        "description": summary.description,
        "path": summary.path,
        "file": summary.file,
        "size": summary.size_bytes,
        "modified_at": timestamp(summary.modified_at_ms),
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
            "errors": [_fault(problem) for problem in view.verdict.errors],
            "warnings": [_fault(problem) for problem in view.verdict.warnings],
        }
    )


def _fault(problem: Problem) -> Fault:
    return Fault(
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
        errors=[_fault(problem) for problem in validation.verdict.errors],
        warnings=[_fault(problem) for problem in validation.verdict.warnings],
    )


def preset_versions(found: PresetVersions) -> Versions:
    versions = [VersionInfo(id=v.id, replaced_at=timestamp(v.id), size=v.size_bytes) for v in found.versions]
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


def preset_sections(found: PresetModels) -> Sections:
    return Sections(
        name=found.name,
        models=[
            SectionInfo(
                name=model.name,
                path=model.path,
                group=model.group,
                config=dict(model.own),
                options=dict(model.options),
                sources={name: level.value for name, level in model.sources.items()},
            )
            for model in found.models
        ],
    )


def inherited(found: Inheritance) -> Inherited:
    return Inherited(
        final_config=dict(found.values),
        sources={name: level.value for name, level in found.sources.items()},
        inheritance_path=[level.value for level in found.path],
    )


def option_list(listed: OptionList) -> Options:
    groups = [OptionGroupInfo(name=g.name, options=[_option(option) for option in g.options]) for g in listed.groups]
    return Options(groups=groups, binary=listed.binary, version=listed.version)


def _option(option: EngineOption) -> OptionInfo:
    return OptionInfo(
        name=option.name,
        aliases=[name for name in option.names if name != option.name],
        negative_aliases=list(option.negatives),
        env=list(option.env),
        type=option.type.value,
        choices=list(option.choices),
        default=option.default,
        description=option.description,
        is_removed=option.is_removed,
        is_reserved=option.is_reserved,
        is_preset_only=option.is_preset_only,
    )


def options_of_model(found: ModelOptions) -> OptionsOfModel:
    options = [SetOption(name=o.name, value=o.value, source=o.source.value) for o in found.options]
    return OptionsOfModel(id=found.model.slug, section=found.section, options=options)


def options_of_engine(found: EngineOptionsView) -> OptionsOfEngine:
    return OptionsOfEngine(max_models=found.max_models, options=dict(found.options))


def directory_info(found: ModelsDirectory) -> DirectoryInfo:
    return DirectoryInfo(
        directory=found.directory,
        models=[
            FileInfo(
                name=m.name,
                path=m.path,
                size=m.size_bytes,
                vram=m.measured_bytes or m.vram_bytes,
                estimated_vram=m.vram_bytes,
                context_size=m.context_size,
            )
            for m in found.models
        ],
    )
