"""The UI's own unit tests and type check."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

FRONTEND = Path(__file__).parents[2] / "frontend"


@pytest.mark.node
@pytest.mark.timeout(180)
@pytest.mark.parametrize("script", ["check", "test"])
def test_sources_pass(node_modules: Path, script: str) -> None:
    done = subprocess.run(
        ["npm", "run", "--silent", script], cwd=node_modules.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_lock_file_names_no_host() -> None:
    lock = (FRONTEND / "package-lock.json").read_text()
    assert '"resolved"' not in lock
