"""The TypeScript client: it compiles strictly, and its calls work against the real service."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from support.service import ServiceFactory

CLIENT = Path(__file__).parents[2] / "clients" / "typescript"

pytestmark = [pytest.mark.node, pytest.mark.engine]


@pytest.fixture
def built(node: str, tmp_path: Path) -> Path:
    """The client's module, compiled from a copy with the packages it locks."""
    copy = tmp_path / "client"
    shutil.copytree(CLIENT, copy, ignore=shutil.ignore_patterns("node_modules", "dist"))
    npm = str(Path(node).with_name("npm"))
    for command in (
        [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        [node, "node_modules/typescript/bin/tsc", "-p", "tsconfig.json"],
    ):
        finished = subprocess.run(command, cwd=copy, capture_output=True, text=True)
        assert finished.returncode == 0, finished.stdout + finished.stderr
    return copy / "dist" / "index.js"


@pytest.mark.timeout(180)
def test_the_typescript_client(node: str, built: Path, start_service: ServiceFactory, models_dir: Path) -> None:
    service = start_service(models_dir=models_dir)
    service.wait_for_models(4)
    command = [node, str(Path(__file__).parent / "service.mjs"), str(built), service.url]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert finished.returncode == 0, finished.stderr
