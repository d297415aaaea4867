"""The real build of a small project that has the real hook and pyproject.toml."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).with_name("uv")
PACKAGE_JSON = '{"name": "ui", "version": "0.0.0", "private": true, "scripts": {"build": "node build.js"}}'
LOCK = '{"name": "ui", "version": "0.0.0", "lockfileVersion": 3, "packages": {"": {"name": "ui", "version": "0.0.0"}}}'
BUILD_JS = """
const fs = require("fs");
const out = process.env.LLAMA_ASYNC_PROXY_WEB_OUT;
fs.mkdirSync(out + "/assets", { recursive: true });
fs.writeFileSync(out + "/index.html", fs.readFileSync("page.html") + String(process.hrtime.bigint()));
fs.writeFileSync(out + "/assets/app.js", "0;".repeat(2000));
"""

pytestmark = [pytest.mark.node, pytest.mark.timeout(180)]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    package, frontend = root / "src" / "llama_async_proxy", root / "frontend"
    package.mkdir(parents=True)
    (frontend / "node_modules").mkdir(parents=True)
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, root / name)
    (package / "__init__.py").write_text('__version__ = "1.2.3"\n')
    (frontend / "package.json").write_text(PACKAGE_JSON)
    (frontend / "package-lock.json").write_text(LOCK)
    (frontend / "build.js").write_text(BUILD_JS)
    (frontend / "page.html").write_text("<!doctype html>one ")
    (frontend / "node_modules" / "mine.js").write_text("a developer's")
    return root


def build(project: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(UV), "build", "--python", sys.executable, *arguments, "--out-dir", str(project / "dist")]
    return subprocess.run(
        command, cwd=project, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def page(project: Path) -> str:
    return (project / "src/llama_async_proxy/web/index.html").read_text()


def wheel_names(project: Path) -> list[str]:
    (wheel,) = (project / "dist").glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


def test_wheel_carries_the_ui_and_an_unchanged_ui_is_not_built_again(project: Path) -> None:
    assert build(project, "--wheel").returncode == 0
    names = wheel_names(project)
    assert {
        f"llama_async_proxy/web/{name}" for name in ("index.html", "assets/app.js", "assets/app.js.gz", ".digest")
    } <= set(names)
    first = page(project)

    (project / "frontend" / "store.test.ts").write_text("tests are no part of the UI")
    assert build(project, "--wheel").returncode == 0
    assert page(project) == first

    (project / "frontend" / "page.html").write_text("<!doctype html>two ")
    assert build(project, "--wheel").returncode == 0
    assert "two" in page(project)
    assert (project / "frontend" / "node_modules" / "mine.js").exists()


def test_editable_install_builds_a_missing_ui(project: Path, tmp_path: Path) -> None:
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv"], check=True)
    command = [str(UV), "pip", "install", "--quiet", "--no-deps", "--python", str(tmp_path / "venv"), "--editable", "."]
    subprocess.run(command, cwd=project, check=True, env={k: v for k, v in os.environ.items() if k != "VIRTUAL_ENV"})
    assert "one" in page(project)


def test_source_distribution_needs_no_node(project: Path, tmp_path: Path) -> None:
    assert build(project, "--sdist").returncode == 0
    (sdist,) = (project / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert not (unpacked / "frontend" / "node_modules").exists()
    # No node on PATH: a hook that wanted to build would ask for the Node.js wheel, which --offline refuses.
    answer = build(unpacked, "--wheel", "--offline", PATH="/nonexistent")
    assert answer.returncode == 0, answer.stderr
    assert page(unpacked) == page(project)


def test_skipping_leaves_the_ui_out(project: Path) -> None:
    assert build(project, "--wheel", LLAMA_ASYNC_PROXY_SKIP_FRONTEND="1").returncode == 0
    assert not [name for name in wheel_names(project) if "/web/" in name]


def test_failed_build_keeps_the_old_ui_and_names_the_ways_out(project: Path) -> None:
    assert build(project, "--wheel").returncode == 0
    before = page(project)
    (project / "frontend" / "build.js").write_text("process.exit(3)")
    answer = build(project, "--wheel")
    assert answer.returncode != 0
    assert "LLAMA_ASYNC_PROXY_SKIP_FRONTEND=1" in answer.stderr
    assert "npm run build" in answer.stderr
    assert page(project) == before
