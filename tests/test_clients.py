from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

CLIENTS = Path(__file__).parents[1] / "clients"


def _generator(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(CLIENTS)
    spec = importlib.util.spec_from_file_location("clients_generate", CLIENTS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["PYTHON", "TYPESCRIPT", "PROTOCOL", "PAGES"])
def test_generated_shapes_are_fresh(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = _generator(monkeypatch)
    path: Path = getattr(generator, name)
    assert path.read_text() == generator.FILES[path](), "run: make docs"
