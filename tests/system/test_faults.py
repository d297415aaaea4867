"""What goes wrong at home: each fault has its own sentence, nothing is lost, nothing is left behind."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import stat
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest

from support.service import RunningService, ServiceFactory

pytestmark = pytest.mark.engine

CHAT = {"model": "slow", "messages": [{"role": "user", "content": "hello"}], "stream": True, "max_tokens": 4000}


def gone(processes: list[psutil.Process], timeout: float = 5) -> bool:
    return not psutil.wait_procs(processes, timeout=timeout)[1]


@contextmanager
def open_stream(service: RunningService) -> Iterator[http.client.HTTPResponse]:
    """A streamed answer whose first bytes have arrived."""
    with closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)) as connection:
        connection.request("POST", "/v1/chat/completions", json.dumps(CHAT), {"Content-Type": "application/json"})
        with connection.getresponse() as response:
            assert response.status == 200
            while (line := response.readline()).startswith(b":") or line == b"\n":
                pass  # a comment: the model is still being loaded
            assert line.startswith(b"data: {")
            yield response


def the_child(service: RunningService) -> psutil.Process:
    [child] = service.children()
    return child


def test_kill_9_of_a_child_in_mid_stream_tells_the_stream_and_the_model_comes_back(
    start_service: ServiceFactory, models_dir: Path
) -> None:
    service = start_service(models_dir=models_dir)
    service.wait_for_models(4)
    with open_stream(service) as stream:
        killed = the_child(service)
        os.kill(killed.pid, signal.SIGKILL)
        rest = stream.read()
    assert b'"error"' in rest
    assert b"[DONE]" not in rest
    # The stream may hear of the death before the engine does, so the status alone proves nothing yet.
    service.wait_until(lambda: {child.pid for child in service.children()} - {killed.pid}, bool, 30)
    service.wait_for_status("slow", "running")
    with open_stream(service) as stream:
        assert stream.read(50)


def test_kill_9_of_the_service_in_mid_load_leaves_no_orphan_and_a_sound_database(
    start_service: ServiceFactory, models_dir: Path
) -> None:
    service = start_service(models_dir=models_dir)
    service.wait_for_models(4)
    loader = threading.Thread(target=_load_quietly, args=(service, "slow"), daemon=True)
    loader.start()
    children = service.wait_until(service.children, bool, 30)
    service.kill()
    assert gone(children)
    service.start()
    assert {m["id"] for m in service.wait_for_models(4)} == {"chat", "slow", "embed", "rerank"}


def _load_quietly(service: RunningService, slug: str) -> None:
    try:
        service.call("POST", f"/api/models/{slug}/load")
    except (OSError, http.client.HTTPException):
        return


def test_kill_9_of_the_service_with_a_loaded_model_leaves_no_orphan(
    start_service: ServiceFactory, models_dir: Path
) -> None:
    service = start_service(models_dir=models_dir)
    service.wait_for_models(4)
    assert service.call("POST", "/api/models/chat/load")[0] == 200
    assert gone(service.kill())


def test_sigterm_with_a_stream_open_ends_in_bounded_time_without_orphans(
    start_service: ServiceFactory, models_dir: Path
) -> None:
    service = start_service(models_dir=models_dir)
    service.wait_for_models(4)
    with open_stream(service):
        assert service.stop() == 0


def test_a_corrupt_file_is_reported_by_the_scan_and_changes_nothing_else(
    start_service: ServiceFactory, models_dir: Path
) -> None:
    (models_dir / "cut.gguf").write_bytes((models_dir / "chat.gguf").read_bytes()[:3000])
    (models_dir / "text.gguf").write_text("this is not a model")
    service = start_service(models_dir=models_dir)
    service.wait_for_models(4)
    status, answer = service.call("POST", "/api/models/scan")
    assert status == 200
    assert {Path(f["path"]).name for f in answer["data"]["failed"]} == {"cut.gguf", "text.gguf"}
    assert all(f["reason"] for f in answer["data"]["failed"])
    assert answer["data"]["total"] == 4


def test_an_unfinished_download_is_reported_by_the_scan(start_service: ServiceFactory, models_dir: Path) -> None:
    whole = (models_dir / "chat.gguf").read_bytes()
    (models_dir / "short.gguf").write_bytes(whole[: len(whole) - len(whole) // 4])
    service = start_service(models_dir=models_dir)
    service.wait_for_models(4)
    [broken] = service.call("POST", "/api/models/scan")[1]["data"]["failed"]
    assert "incomplete" in broken["reason"]


def test_a_model_the_engine_refuses_fails_with_the_engines_reason(
    start_service: ServiceFactory, models_dir: Path
) -> None:
    alien = (models_dir / "chat.gguf").read_bytes().replace(b"llama.", b"xlama.")
    key = b"general.architecture" + struct.pack("<IQ", 8, 5)
    (models_dir / "alien.gguf").write_bytes(alien.replace(key + b"llama", key + b"xlama"))
    service = start_service(models_dir=models_dir)
    service.wait_for_models(5)
    status, answer = service.call("POST", "/api/models/alien/load")
    assert status == 503
    assert "xlama" in answer["error"]["message"]
    assert "exit code 1" in answer["error"]["message"]
    assert answer["error"]["details"], "the last lines of the engine's log"
    assert service.call("GET", "/api/models/alien")[1]["data"]["status"] == "error"
    assert service.call("POST", "/api/models/chat/load")[0] == 200


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        service = RunningService(tmp_path, port=holder.getsockname()[1])
        assert service.spawn().wait(60) == 1
    assert f"port {service.port} on 127.0.0.1 is in use" in service.output
    assert "--port" in service.output
    assert "Traceback" not in service.output


def test_a_missing_binary_is_named_and_the_service_still_answers(tmp_path: Path, models_dir: Path) -> None:
    arguments = ("--engine", "workers", "--llama-server", "/nonexistent/llama-server")
    with RunningService(tmp_path, *arguments, models_dir=models_dir) as service:
        service.wait_for_models(4)
        status, answer = service.call("GET", "/api/health")
        assert status == 503
        status, answer = service.call("POST", "/api/models/chat/load")
        assert status == 503
        assert "/nonexistent/llama-server" in answer["error"]["message"]
        assert "--llama-server" in answer["error"]["message"]


def test_a_data_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    # Root may write anywhere, so the directory's place is taken by a file, which fails for everybody.
    occupied = tmp_path / "occupied"
    occupied.write_text("")
    occupied.chmod(stat.S_IRUSR)
    service = RunningService(tmp_path)
    service.data_dir = occupied / "data"
    assert service.spawn().wait(60) == 1
    assert str(service.data_dir) in service.output
    assert "--data-dir" in service.output
    assert "Traceback" not in service.output


def test_a_second_service_on_one_data_directory_is_refused(start_service: ServiceFactory, tmp_path: Path) -> None:
    first = start_service()
    second = RunningService(tmp_path)
    assert second.spawn().wait(60) == 1
    assert str(first.process.pid) in second.output
    assert first.call("GET", "/api/health")[0] == 200


def test_an_address_others_can_reach_is_refused_without_the_flag(tmp_path: Path) -> None:
    service = RunningService(tmp_path, "--host", "0.0.0.0")
    assert service.spawn().wait(60) == 2
    assert "--insecure-no-auth" in service.output


def test_a_broken_configuration_file_is_named_with_its_place(tmp_path: Path) -> None:
    service = RunningService(tmp_path)
    service.data_dir.mkdir()
    (service.data_dir / "llama-server-config.json").write_text('{"port": 8134,\n  "host" "localhost"}')
    assert service.spawn().wait(60) == 2
    assert "llama-server-config.json" in service.output
    assert "line 2" in service.output
