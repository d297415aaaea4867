"""The configuration in force, and changes to it."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from llama_async_proxy.api.rest.routing import BODY, RestRoute, RouteTable, ServiceContext
from llama_async_proxy.api.rest.schema import Envelope, RestAnswer, StrictModel
from llama_async_proxy.chats import prompt
from llama_async_proxy.operations import config as config_operations
from llama_async_proxy.operations.config import ConfigUpdated, GetConfig, UpdateConfig
from llama_async_proxy.operations.configuration import as_tree
from llama_async_proxy.records.chats import Sampling
from llama_async_proxy.settings import BY_NAME, Settings

# --- schema -----------------------------------------------------------------------------------------------------------


class EngineConfig(StrictModel):
    """The engine's part of the configuration file; -1 leaves a number to the engine."""

    host: str
    port: int
    basePath: str = Field(description="Directory of the GGUF files.")  # noqa: N815 - the file's own spelling
    serverPath: str = Field(description="The llama-server binary; empty: found by itself.")  # noqa: N815
    ctx_size: int
    batch_size: int
    threads: int
    gpu_layers: int


class ConfigBody(StrictModel):
    """Any part of the configuration file; what is absent keeps its value."""

    model_config = ConfigDict(extra="allow")

    # Factories, so that the document shows neither null, which is refused, nor a default, which there is none.
    host: str = Field(default_factory=str)
    port: int = Field(default_factory=int)
    basePath: str = Field(default_factory=str)  # noqa: N815
    serverPath: str = Field(default_factory=str)  # noqa: N815
    ctx_size: int = Field(default_factory=int)
    batch_size: int = Field(default_factory=int)
    threads: int = Field(default_factory=int)
    gpu_layers: int = Field(default_factory=int)

    @property
    def changes(self) -> dict[str, object]:
        return self.model_dump(exclude_unset=True)


class Timeouts(StrictModel):
    llamacpp_timeout: float = Field(description="Seconds without a byte of the answer.")
    llamacpp_connect_timeout: float = Field(description="Seconds.")


class SamplingDefaults(StrictModel):
    """Of answers in conversations that say nothing else; null: the model's own default rules."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    num_predict: int | None = None
    repeat_penalty: float | None = None
    stop: list[str] | None = None


class Performance(StrictModel):
    context_history_limit: int = Field(description="Newest messages of a conversation the model sees; 0: all.")
    num_thread: int
    use_mlock: bool | None = None
    use_mmap: bool | None = None


class ResponseOptimization(StrictModel):
    stream: bool = Field(description="Whether /api/chat streams when it is not told to.")
    keep_alive: str = Field(description='How long an unused model stays loaded: "600s"; "-1" is for ever.')


class ConfigAnswer(Envelope[EngineConfig]):
    timeouts: Timeouts
    model_options: SamplingDefaults
    performance: Performance
    response_optimization: ResponseOptimization
    settings: dict[str, Any] = Field(description="Every setting, nested as in the configuration file.")


class ConfigUpdatedAnswer(RestAnswer[EngineConfig]):
    restartRequired: bool  # noqa: N815
    overridden: list[str] = Field(description="Keys that the command line or the environment set at the next start.")
    warnings: list[str]


# --- mapping ----------------------------------------------------------------------------------------------------------


def engine_config(settings: Settings) -> EngineConfig:
    return EngineConfig(
        host=settings.engine_host,
        port=settings.engine_port,
        basePath=str(settings.models_dir),
        serverPath=settings.shown_llama_server,
        ctx_size=settings.ctx_size,
        batch_size=settings.batch_size,
        threads=settings.threads,
        gpu_layers=settings.gpu_layers,
    )


def config_answer(settings: Settings) -> ConfigAnswer:
    ttl_s = settings.idle_ttl_s
    return ConfigAnswer(
        data=engine_config(settings),
        timeouts=Timeouts(
            llamacpp_timeout=settings.first_token_timeout_s, llamacpp_connect_timeout=settings.connect_timeout_s
        ),
        model_options=_sampling_defaults(prompt.defaults(settings)),
        performance=Performance(num_thread=settings.threads, context_history_limit=settings.chat_history_limit),
        response_optimization=ResponseOptimization(stream=False, keep_alive=f"{ttl_s:g}s" if ttl_s else "-1"),
        settings=as_tree(settings),
    )


def _sampling_defaults(sampling: Sampling) -> SamplingDefaults:
    return SamplingDefaults(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        num_predict=sampling.num_predict,
        repeat_penalty=sampling.repeat_penalty,
        stop=None if sampling.stop is None else list(sampling.stop),
    )


def config_updated_answer(updated: ConfigUpdated) -> ConfigUpdatedAnswer:
    return ConfigUpdatedAnswer(
        data=engine_config(updated.settings),
        message="Configuration updated successfully",
        restartRequired=updated.change.restart_required,
        overridden=[BY_NAME[name].file_key for name in updated.change.overridden],
        warnings=list(updated.change.warnings),
    )


# --- routes -----------------------------------------------------------------------------------------------------------


async def get_config(context: ServiceContext) -> ConfigAnswer:
    """The configuration in force."""
    view = await config_operations.get_config(context, GetConfig())
    return config_answer(view.settings)


async def update_config(context: ServiceContext, body: ConfigBody) -> ConfigUpdatedAnswer:
    """Change any part of the configuration: all of it or, when a value is wrong, nothing."""
    return config_updated_answer(await config_operations.update_config(context, UpdateConfig(body.changes)))


TABLES = (
    RouteTable(
        "config",
        (
            RestRoute("GET", "/api/config", get_config, ConfigAnswer),
            RestRoute("POST", "/api/config", update_config, ConfigUpdatedAnswer, (*BODY, 403, 503)),
        ),
        shows_null=True,
    ),
)
