from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.operations.launch import LaunchPlanner, OptionSource, RunningPreset
from llama_async_proxy.operations.option_policy import OptionPolicy
from llama_async_proxy.presets.ini import Document
from llama_async_proxy.records.models import Model, ModelFacts, ModelKind, ModelOrigin
from llama_async_proxy.records.options import OptionValue
from llama_async_proxy.records.runtime import LaunchSpec
from llama_async_proxy.settings import Settings, resolve
from support.engine_help import CATALOGUE


def settings(**file: Any) -> Settings:
    return resolve(command_line={}, environment={}, file=file, default_data_dir=Path("/data"))


def model(**changes: Any) -> Model:
    facts = ModelFacts(architecture="llama", kind=ModelKind.CHAT)
    return Model(
        id=7,
        slug="m",
        name="M",
        path="/m.gguf",
        origin=ModelOrigin.SCANNED,
        facts=facts,
        size_bytes=1,
        mtime_ns=1,
        **changes,
    )


def launch_spec(config: Settings, of: Model, options: dict[str, OptionValue]) -> LaunchSpec:
    return LaunchPlanner(lambda: config, OptionPolicy(lambda: config, lambda: ())).spec(of, options)


def test_what_nobody_set_is_not_passed() -> None:
    spec = launch_spec(settings(), model(), {})
    assert spec.options == {}
    assert (spec.model_id, spec.alias, spec.path, spec.mmproj_path) == (7, "m", "/m.gguf", None)


def test_minus_one_is_not_passed_even_when_set() -> None:
    assert launch_spec(settings(ctx_size=-1, gpu_layers=-1, threads=3), model(), {}).options == {"threads": 3}


def test_the_load_outranks_the_model_outranks_the_configuration() -> None:
    config = settings(ctx_size=1024, threads=2, batch_size=64)
    own = model(context_size=2048, options={"threads": 4})
    assert launch_spec(config, own, {"threads": 8}).options == {"ctx-size": 2048, "threads": 8, "batch-size": 64}
    assert launch_spec(config, model(context_size=2048, options={"ctx-size": 512}), {}).options["ctx-size"] == 512


# --- with the engine's catalogue and a preset ---------------------------------------------------------------------


def planner(text: str = "", *engine_options: str) -> LaunchPlanner:
    config = settings(ctx_size=1, llama={"options": list(engine_options)})
    made = LaunchPlanner(lambda: config, OptionPolicy(lambda: config, lambda: ()))
    made.catalogue = CATALOGUE
    made.preset = RunningPreset("p", Document.parse(text))
    return made


def test_one_option_under_several_names_is_passed_once() -> None:
    spec = planner("[m]\nc = 3\n", "temperature=0.5").spec(model(options={"LLAMA_ARG_CTX_SIZE": 4}), {"temp": 0.7})
    assert spec.options == {"ctx-size": 4, "temp": 0.7}


def test_a_switch_that_cannot_be_turned_off_is_left_out_instead() -> None:
    options = planner("[*]\nswa-full = true\nno-warmup = true\n[m]\nswa-full = false\n").spec(model()).options
    assert options == {"ctx-size": 1, "warmup": False}


def test_what_is_the_services_own_business_is_not_taken_from_a_preset() -> None:
    assert planner("[m]\nhost = 0.0.0.0\nmodel = /x\nload-on-startup = true\n").spec(model()).options == {"ctx-size": 1}


def test_what_the_service_heeds_itself_is_not_passed() -> None:
    made = planner("[*]\nstop-timeout = 5\n[m]\nstop-timeout = 7\n")
    assert (made.spec(model()).stop_timeout_s, made.spec(model(options={"stop-timeout": 9})).stop_timeout_s) == (7, 9)
    spec = made.spec(model(options={"stop-timeout": 9, "idle-ttl": 60}))
    assert spec.options == {"ctx-size": 1}
    assert planner().spec(model()).stop_timeout_s is None


@pytest.mark.parametrize("section", ["m", "M", "other-name"])
def test_a_section_speaks_of_the_model_by_any_of_its_names(section: str) -> None:
    assert planner(f"[{section}]\nc = 9\n").spec(model(aliases=("other-name",))).options == {"ctx-size": 9}


def test_a_section_that_names_the_file_speaks_of_its_model() -> None:
    made = planner("[writer]\nc = 9\n[m]\nc = 8\nmodel = /elsewhere.gguf\n")
    made.preset = RunningPreset(
        "p", Document.parse("[writer]\nc = 9\n[m]\nc = 8\n"), {"writer": "/m.gguf", "m": "/e.gguf"}
    )
    assert made.spec(model()).options == {"ctx-size": 9}


def test_every_effective_option_names_its_source() -> None:
    made = planner("[*]\ntop-k = 5\n", "threads=2")
    shown = {option.name: (option.value, option.source) for option in made.effective(model(options={"temp": 0.1}))}
    assert {name: shown[name] for name in ("ctx-size", "threads", "top-k", "temp", "batch-size")} == {
        "ctx-size": (1, OptionSource.CONFIGURATION),
        "threads": (2, OptionSource.ENGINE_OPTIONS),
        "top-k": (5, OptionSource.PRESET_GLOBAL),
        "temp": (0.1, OptionSource.MODEL),
        "batch-size": (2048, OptionSource.ENGINE),
    }


@pytest.mark.parametrize("text", ["temp", "=1", "temp=hot", "c="])
def test_an_engine_option_that_is_none_is_named(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"llama\.options"):
        planner("", text).spec(model())
