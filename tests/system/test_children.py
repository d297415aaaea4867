"""The processes that run models, as the operating system sees them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.models import write_chat
from support.service import ServiceFactory

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows a process's environment in /proc"),
]
SECRETS = {"HF_TOKEN": "secret", "DATABASE_URL": "postgres://me:secret@host"}
MEANT_FOR_THE_ENGINE = {"LLAMA_ARG_CTX_SIZE": "nonsense", "AIP_HTTP_PORT": "1", "LLAMA_ARG_PORT": "1"}


@pytest.mark.parametrize("engine", ["auto", "embedded"])
def test_a_model_gets_no_secrets_and_is_what_the_kernel_ends_first(
    engine: str, start_service: ServiceFactory, tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    write_chat(tmp_path / "models" / "chat.gguf")
    environment = {**SECRETS, **MEANT_FOR_THE_ENGINE, "NAMED": "1"}
    service = start_service("--engine", engine, "--engine-environment", "NAMED", environment=environment)
    service.wait_for_models(1)
    assert service.call("POST", "/api/models/chat/load")[0] == 200
    [child] = service.children()
    process = Path("/proc") / str(child.pid)
    names = {variable.split("=")[0] for variable in (process / "environ").read_text().split("\0")}
    assert {"PATH", "NAMED"} <= names
    assert not names & {*SECRETS, *MEANT_FOR_THE_ENGINE}
    scores = [int((Path("/proc") / str(pid) / "oom_score_adj").read_text()) for pid in (child.pid, service.process.pid)]
    assert scores[0] > scores[1]
