"""This service and what it is compared with, all in front of the same mock engine: `stand()`."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from support.models import write_chat
from support.native import pin, program
from support.service import RunningService, clean_environment, free_port

_HERE = Path(__file__).parent
_LITELLM = _HERE.parents[1] / ".cache/bench/litellm"
_KEY = "sk-0123456789abcdef0123456789abcdef"
"""What the load generator sends; LiteLLM does not start without one."""
OTHERS = ("nginx", "haproxy", "asgi+aiohttp")


@dataclass(frozen=True)
class Rival:
    """Something that answers on `port` for the model `mock`."""

    name: str
    port: int
    processes: tuple[psutil.Process, ...] = ()
    """Whose CPU time and memory are its cost; none for the engine itself."""

    def cpu_s(self) -> float:
        return float(sum(times.user + times.system for times in (each.cpu_times() for each in self.processes)))

    def rss_mib(self) -> float:
        return float(sum(each.memory_info().rss for each in self.processes)) / 2**20


@contextlib.contextmanager
def stand(rivals: Iterable[str] = OTHERS) -> Iterator[dict[str, Rival]]:
    """By name, ready: `direct` (the engine itself), `service`, and those of `rivals` that this machine has."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        service, engine = stack.enter_context(_service(directory))
        found = {"direct": Rival("direct", engine), "service": service}
        for name in rivals:
            if name in ("nginx", "haproxy") and shutil.which(name) is None:
                print(f"{name} is not installed and left out", file=sys.stderr)
                continue
            port = free_port()
            found[name] = stack.enter_context(_proxy(name, _COMMANDS[name](directory, port, engine), port))
        yield found


@contextlib.contextmanager
def _service(directory: Path) -> Iterator[tuple[Rival, int]]:
    """The whole service, and the port of the mock engine it has started as its child."""
    (directory / "models").mkdir()
    write_chat(directory / "models/mock.gguf")
    with RunningService(directory, "--llama-server", str(program("mock_engine"))) as service:
        service.wait_for_models(1)
        _wait_for(service.port, "the service")
        [child] = [child for child in service.children() if child.name() == "mock_engine"]
        [port] = [c.laddr.port for c in child.net_connections() if c.status == "LISTEN"]
        pin(child.pid, to_load_core=True)
        pin(service.process.pid, to_load_core=False)
        yield Rival("service", service.port, (psutil.Process(service.process.pid),)), port


@contextlib.contextmanager
def _proxy(name: str, command: list[str], port: int) -> Iterator[Rival]:
    child = subprocess.Popen(command, env=clean_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, name)
        process = psutil.Process(child.pid)
        family = (process, *process.children(recursive=True))
        for each in family:
            pin(each.pid, to_load_core=False)
        yield Rival(name, port, family)
    finally:
        child.terminate()
        child.wait(10)


def _wait_for(port: int, name: str) -> None:
    """Until it answers a request, which loads the model."""
    url, body = (
        f"http://127.0.0.1:{port}/v1/chat/completions",
        b'{"model":"mock","messages":[{"role":"user","content":"?"}]}',
    )
    headers = {"content-type": "application/json", "authorization": f"Bearer {_KEY}"}
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30).read()
            return
        if time.monotonic() > deadline:
            sys.exit(f"{name} does not answer on port {port}")
        time.sleep(0.05)


# --- how each is started ----------------------------------------------------------------------------------------------


def _nginx(directory: Path, port: int, engine: int) -> list[str]:
    config = directory / "nginx.conf"
    config.write_text(f"""
        daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log /dev/null;
        events {{ worker_connections 8192; }}
        http {{
            access_log off;
            keepalive_requests 1000000;
            upstream engine {{ server 127.0.0.1:{engine}; keepalive 64; }}
            server {{
                listen 127.0.0.1:{port} backlog=4096;
                location / {{
                    proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection "";
                    proxy_buffering off; proxy_read_timeout 600s;
                }}
            }}
        }}
    """)
    return ["nginx", "-c", str(config), "-p", str(directory)]


def _haproxy(directory: Path, port: int, engine: int) -> list[str]:
    config = directory / "haproxy.cfg"
    config.write_text(f"""
global
    nbthread 1
    maxconn 4096
defaults
    mode http
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    http-reuse always
    option http-no-delay
frontend clients
    bind 127.0.0.1:{port}
    default_backend engine
backend engine
    server engine 127.0.0.1:{engine}
""")
    return ["haproxy", "-db", "-f", str(config)]


def _asgi_aiohttp(_: Path, port: int, engine: int) -> list[str]:
    return [sys.executable, str(_HERE / "asgi_aiohttp.py"), str(port), str(engine)]


def _litellm(directory: Path, port: int, engine: int) -> list[str]:
    """From the package index, into an environment of its own."""
    if not (_LITELLM / "bin/litellm").exists():
        uv = Path(sys.executable).with_name("uv")
        subprocess.run([uv, "venv", "--quiet", _LITELLM], check=True)
        subprocess.run(
            [uv, "pip", "install", "--quiet", "--python", _LITELLM / "bin/python", "litellm[proxy]"], check=True
        )
    config = directory / "litellm.yaml"
    parameters = f"{{model: openai/mock, api_base: 'http://127.0.0.1:{engine}/v1', api_key: none}}"
    models = f"model_list:\n  - model_name: mock\n    litellm_params: {parameters}\n"
    config.write_text(f"{models}general_settings:\n  master_key: {_KEY}\n")
    return [str(_LITELLM / "bin/litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]


_COMMANDS: dict[str, Callable[[Path, int, int], list[str]]] = {
    "nginx": _nginx,
    "haproxy": _haproxy,
    "asgi+aiohttp": _asgi_aiohttp,
    "litellm": _litellm,
}
