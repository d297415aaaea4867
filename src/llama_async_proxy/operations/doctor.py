"""Examines this machine without a running service: what was found, is it well, what to do."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import socket
import sys
from enum import StrEnum
from pathlib import Path

from msgspec import Struct

from llama_async_proxy import __version__
from llama_async_proxy.engines.discovery import find_launcher
from llama_async_proxy.engines.remote_router import RemoteRouter
from llama_async_proxy.errors import EngineMissing, ServiceError
from llama_async_proxy.gguf.files import is_candidate
from llama_async_proxy.monitor.gpu import machine_gpus
from llama_async_proxy.settings import Settings
from llama_async_proxy.store.database import examine_database

_LITTLE_DISK_BYTES = 1 << 30


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(Struct, frozen=True):
    subject: str
    level: Level
    found: str
    advice: str = ""

    def as_json(self) -> dict[str, str]:
        return {"subject": self.subject, "level": self.level, "found": self.found, "advice": self.advice}


async def examine(settings: Settings) -> tuple[Finding, ...]:
    """Every check, in the order a person would make them. Changes nothing."""
    return (
        _versions(),
        await _router(settings) if _is_elsewhere(settings) else await asyncio.to_thread(_engine, settings),
        _directory("data directory", settings.data_dir, "--data-dir"),
        _directory("models directory", settings.models_dir, "--models-dir"),
        await asyncio.to_thread(_models, settings.models_dir),
        await asyncio.to_thread(_database, settings.database_path),
        _port(settings),
        await asyncio.to_thread(_gpus),
    )


def _is_elsewhere(settings: Settings) -> bool:
    return settings.engine == "router" and bool(settings.router_url)


def _versions() -> Finding:
    python = ".".join(map(str, sys.version_info[:3]))
    return Finding(
        "versions",
        Level.OK,
        f"llama-async-proxy {__version__}, Python {python}, {platform.system()} {platform.machine()}",
    )


async def _router(settings: Settings) -> Finding:
    try:
        opened = await RemoteRouter(settings.router_url, settings.router_api_key_file).open(lambda *_: None)
    except ServiceError as exc:
        return Finding("engine", Level.PROBLEM, exc.message)
    return Finding("engine", Level.OK, f"a router at {opened.endpoint.host}:{opened.endpoint.port}")


def _engine(settings: Settings) -> Finding:
    kind = "workers" if settings.engine == "router" else settings.engine
    try:
        launcher = find_launcher(kind, settings.llama_server)
    except EngineMissing as exc:
        return Finding("engine", Level.PROBLEM, exc.message, exc.details or "")
    advice = [*launcher.skipped]
    if settings.requested_llama_server:
        advice.append(
            f"A client asked for {settings.requested_llama_server} (llama.requestedServerPath), which is not run. "
            "If it is yours, name it with --llama-server."
        )
    level = Level.WARNING if advice else Level.OK
    if launcher.binary:
        role = f", as a router on {settings.engine_host}:{settings.engine_port}" if kind != settings.engine else ""
        return Finding("engine", level, f"{launcher.binary}, version {launcher.version}{role}", " ".join(advice))
    advice.append("For a GPU install a llama-server built for it and give --llama-server PATH.")
    return Finding("engine", level, f"built-in engine, xllamacpp {launcher.version}, CPU only", " ".join(advice))


def _directory(subject: str, path: Path, flag: str) -> Finding:
    if not path.exists():
        parent = next(p for p in path.parents if p.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            return Finding(subject, Level.PROBLEM, f"{path} cannot be made in {parent}", f"Choose another with {flag}.")
        return Finding(subject, Level.OK, f"{path} does not exist yet; the service makes it")
    if not path.is_dir():
        return Finding(subject, Level.PROBLEM, f"{path} is not a directory", f"Choose another with {flag}.")
    if not os.access(path, os.R_OK | os.X_OK | (os.W_OK if flag == "--data-dir" else 0)):
        return Finding(
            subject, Level.PROBLEM, f"{path} may not be used by this user", f"Mend its permissions or use {flag}."
        )
    free = shutil.disk_usage(path).free
    found = f"{path}, {free / 2**30:.3g} GiB free"
    if free < _LITTLE_DISK_BYTES:
        return Finding(subject, Level.WARNING, found, "Little space is left on this disk.")
    return Finding(subject, Level.OK, found)


def _models(directory: Path) -> Finding:
    count = sum(is_candidate(path.name) for path in directory.rglob("*")) if directory.is_dir() else 0
    if count == 0:
        return Finding(
            "models",
            Level.WARNING,
            f"no model files in {directory}",
            "Put .gguf files there, or run: llama-async-proxy demo",
        )
    return Finding("models", Level.OK, f"{count} model files in {directory}")


def _database(path: Path) -> Finding:
    if not path.exists():
        return Finding("database", Level.OK, f"{path} does not exist yet; the service makes it")
    try:
        return Finding("database", Level.OK, f"{path}, {examine_database(path)}")
    except ServiceError as exc:
        return Finding("database", Level.PROBLEM, exc.message, exc.details or "")


def _port(settings: Settings) -> Finding:
    subject = "port"
    where = f"{settings.port} on {settings.host}"
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((settings.host, settings.port))
            probe.listen()
    except OSError as exc:
        advice = "The service may be running already; else choose another with --port."
        return Finding(subject, Level.WARNING, f"{where} cannot be used: {exc.strerror}", advice)
    return Finding(subject, Level.OK, f"{where} is free")


def _gpus() -> Finding:
    probe = machine_gpus()
    try:
        gpus = probe.read().gpus
    finally:
        probe.close()
    if not gpus:
        return Finding("GPU", Level.OK, "none found; models run on the CPU")
    return Finding("GPU", Level.OK, "; ".join(f"{g.name}, {_memory(g.memory_total_bytes)}" for g in gpus))


def _memory(total_bytes: int | None) -> str:
    return "memory not known" if total_bytes is None else f"{total_bytes / 2**30:.3g} GiB"
