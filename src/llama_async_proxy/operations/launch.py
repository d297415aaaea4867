"""From settings, a model and a load's own wishes to what the engine is asked to run. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from llama_async_proxy.records import LaunchSpec, Model, OptionValue
from llama_async_proxy.settings import Settings

_FLAG_OF_SETTING = {
    "ctx_size": "ctx-size",
    "batch_size": "batch-size",
    "threads": "threads",
    "gpu_layers": "n-gpu-layers",
}


def launch_spec(settings: Settings, model: Model, options: Mapping[str, OptionValue]) -> LaunchSpec:
    """Later wins: configuration < the model's own < this load's. What nobody set is not passed, so that the engine's
    own fitting to free memory stays in force.
    """
    return LaunchSpec(
        model_id=model.id,
        alias=model.slug,
        path=model.path,
        kind=model.facts.kind,
        options={**_from_settings(settings), **_from_model(model), **options},
        mmproj_path=model.mmproj_path,
        load_timeout_s=settings.load_timeout_s,
    )


def _from_settings(settings: Settings) -> dict[str, OptionValue]:
    return {
        flag: getattr(settings, name)
        for name, flag in _FLAG_OF_SETTING.items()
        if settings.is_set(name) and getattr(settings, name) != -1
    }


def _from_model(model: Model) -> dict[str, OptionValue]:
    context = {} if model.context_size is None else {"ctx-size": model.context_size}
    return {**context, **model.options}
