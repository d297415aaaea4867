"""The UI's own unit tests and type check, and that both ends of its feed speak of the same fields."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import msgspec
import pytest

from llama_async_proxy.api.ui import schema

FRONTEND = Path(__file__).parents[2] / "frontend"
PROTOCOL = (FRONTEND / "src" / "live" / "protocol.ts").read_text()


@pytest.mark.node
@pytest.mark.timeout(180)
@pytest.mark.parametrize("script", ["check", "test"])
def test_sources_pass(node_modules: Path, script: str) -> None:
    done = subprocess.run(
        ["npm", "run", "--silent", script], cwd=node_modules.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("struct", "interface"),
    [
        (schema.UiModel, "UiModel"),
        (schema.UiQueue, "QueueState"),
        (schema.UiProgress, "LoadProgress"),
        (schema.UiGpu, "UiGpu"),
        (schema.UiSample, "UiSample"),
        (schema.UiEngine, "UiEngine"),
        (schema.UiRequest, "UiRequest"),
        (schema.UiConversation, "UiConversation"),
        (schema.UiAttachment, "UiAttachment"),
        (schema.UiMessage, "UiMessage"),
    ],
)
def test_both_ends_know_the_same_fields(struct: type[msgspec.Struct], interface: str) -> None:
    found = re.search(rf"export interface {interface} {{\n(.*?)\n}}", PROTOCOL, re.DOTALL)
    assert found is not None
    written = dict(re.findall(r"^  (\w+): (.*);$", found[1], re.MULTILINE))
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    assert written.keys() == fields.keys()
    for name, field in fields.items():
        assert ("| null" in written[name]) == ("None" in str(field.type)), name


def test_lock_file_names_no_host() -> None:
    lock = (FRONTEND / "package-lock.json").read_text()
    assert '"resolved"' not in lock
