"""What a router has to do with the registered models: which it is to serve, and which it brings along."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from llama_async_proxy.engines.local_router import RouterOptions
from llama_async_proxy.engines.router_schema import RouterModel
from llama_async_proxy.errors import ServiceError
from llama_async_proxy.events import EventBus, ModelCreated
from llama_async_proxy.operations.commands import fileless
from llama_async_proxy.operations.launch import LaunchPlanner
from llama_async_proxy.records.models import Model, ModelDraft, ModelOrigin
from llama_async_proxy.records.runtime import LaunchSpec
from llama_async_proxy.settings import Settings
from llama_async_proxy.store.store import Store

ROUTER_PATH = "router:"


def router_options(settings: Settings) -> RouterOptions:
    """Of our own router, with the settings there are now."""
    return RouterOptions(
        settings.engine_host, settings.engine_port, settings.max_models, autoload=settings.load_on_request
    )


def registered_specs(planner: LaunchPlanner, models: Sequence[Model]) -> tuple[LaunchSpec, ...]:
    """Every model as it would be launched now. One that could not be is left out: only its own load must fail."""
    specs = []
    for model in models:
        with suppress(ServiceError):
            specs.append(planner.spec(model))
    return tuple(specs)


async def register_found(store: Store, bus: EventBus, found: Sequence[RouterModel]) -> None:
    """Register the models of a router elsewhere that are none of ours, neither by file nor by name."""
    models = store.models.all()
    known = {model.path for model in models} | {model.slug for model in models}

    def is_known(model: RouterModel) -> bool:
        return not known.isdisjoint({ROUTER_PATH + model.name, model.path, model.name, *model.aliases})

    drafts = [
        ModelDraft(file=fileless(ROUTER_PATH + model.name, model.name), origin=ModelOrigin.SCANNED, name=model.name)
        for model in found
        if not is_known(model)
    ]
    if drafts:
        for model in await store.models.add_many(drafts):
            bus.publish(ModelCreated(model))
