from __future__ import annotations

from pathlib import Path
from typing import Any

from llama_async_proxy.operations.launch import LaunchPlanner
from llama_async_proxy.records import LaunchSpec, Model, ModelFacts, ModelKind, ModelOrigin, OptionValue
from llama_async_proxy.settings import Settings, resolve


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
    return LaunchPlanner(lambda: config).spec(of, options)


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
