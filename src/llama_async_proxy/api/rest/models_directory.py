"""The files of the models directory. Sizes are bytes."""

from __future__ import annotations

from pydantic import Field

from llama_async_proxy.api.rest.routing import RestRoute, RouteTable, ServiceContext
from llama_async_proxy.api.rest.schema import CamelModel, RestAnswer, StrictModel
from llama_async_proxy.operations import models_directory as models_directory_operations
from llama_async_proxy.operations.models_directory import ListModelsDirectory, ModelsDirectory

# --- schema -----------------------------------------------------------------------------------------------------------


class FileInfo(CamelModel):
    name: str
    path: str
    size: int
    vram: int | None = Field(
        None,
        description="Bytes it takes of GPU and main memory if it is loaded, else of the GPU with every layer there.",
    )
    estimated_vram: int | None = Field(None, description="The latter, loaded or not.")
    context_size: int | None = Field(None, description="Tokens that `estimatedVram` holds for.")


class DirectoryInfo(StrictModel):
    directory: str
    models: list[FileInfo]


# --- mapping ----------------------------------------------------------------------------------------------------------


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


# --- routes -----------------------------------------------------------------------------------------------------------


async def list_models_directory(context: ServiceContext) -> RestAnswer[DirectoryInfo]:
    """The files of the models directory, and the GPU memory each would take."""
    return RestAnswer(
        data=directory_info(await models_directory_operations.list_models_directory(context, ListModelsDirectory()))
    )


TABLES = (
    RouteTable(
        "models", (RestRoute("GET", "/api/models-directory", list_models_directory, RestAnswer[DirectoryInfo]),)
    ),
)
