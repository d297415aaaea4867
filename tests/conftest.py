"""Fixtures shared by every room: real model files, the real engines, the real service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from support.models import linked
from support.service import LLAMA_SERVER, RunningService, ServiceFactory

# How long an example takes says more of the machine than of the code, and the first one loads hypothesis's tables.
hypothesis.settings.register_profile("tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("tests")


@pytest.fixture(scope="session")
def llama_server() -> Path:
    if not LLAMA_SERVER.is_file():
        pytest.skip(f"no llama-server at {LLAMA_SERVER}: run tests/setup.sh")
    return LLAMA_SERVER


@pytest.fixture(scope="session")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one model of each kind: chat.gguf, slow.gguf, embed.gguf, rerank.gguf."""
    from support.models import write_chat, write_embedding, write_rerank, write_slow_chat

    directory = tmp_path_factory.mktemp("models")
    write_chat(directory / "chat.gguf")
    write_slow_chat(directory / "slow.gguf")
    write_embedding(directory / "embed.gguf")
    write_rerank(directory / "rerank.gguf")
    return directory


@pytest.fixture
def models_dir(model_files: Path, tmp_path: Path) -> Path:
    """The same files in a directory of the test's own: it may add, remove and replace them, not write into them."""
    return linked(model_files, tmp_path / "models")


@pytest.fixture
def start_service(tmp_path: Path, llama_server: Path) -> Iterator[ServiceFactory]:
    """Start real services with arguments of the test's choice; all are stopped at its end."""
    running: list[RunningService] = []

    def start(*arguments: str, models_dir: Path | None = None, **options: Any) -> RunningService:
        service = RunningService(
            tmp_path, "--llama-server", str(llama_server), *arguments, models_dir=models_dir, **options
        )
        running.append(service)
        service.start()
        return service

    yield start
    for service in running:
        service.__exit__()


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, model_files: Path, llama_server: Path
) -> Iterator[RunningService]:
    """A real service with one model of each kind, shared by the tests of a module."""
    directory = tmp_path_factory.mktemp("service")
    models = linked(model_files, directory / "models")
    with RunningService(directory, "--llama-server", str(llama_server), models_dir=models) as running:
        running.wait_for_models(4)
        yield running
