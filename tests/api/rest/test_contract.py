"""What the OpenAPI document says is what happens, whatever is sent."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.harness import ServiceHarness, house

DOCUMENT: dict[str, Any] = json.loads((Path(__file__).parents[3] / "docs/openapi.json").read_text())
TAGS = sorted({tag for methods in DOCUMENT["paths"].values() for op in methods.values() for tag in op["tags"]})
EXAMPLES = 6
PROMISES = [
    status_code_conformance,
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
]
TOO_LARGE = [promise for promise in PROMISES if promise is not negative_data_rejection]
"""Of a body that is refused unread: schemathesis does not count 413 among the refusals."""
KNOWN: dict[str, str] = {"model_id": "chat", "name": "default"}
"""Values of path parameters that exist, taken for half of the requests."""


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.timeout(120)
async def test_whatever_is_sent_the_document_tells_the_answer(tag: str, tmp_path: Path, model_files: Path) -> None:
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    operations = [operation.ok() for operation in schema.get_all_operations() if isinstance(operation, Ok)]
    async with house(tmp_path, model_files) as at:
        for operation in operations:
            if tag in (operation.tags or ()):
                await asyncio.to_thread(_try, operation, at)


def _try(operation: APIOperation[Any, Any, Any, Any], at: ServiceHarness) -> None:
    """In a thread of its own, since the service runs in the test's."""
    has_input = bool(operation.body or operation.query or operation.path_parameters)

    @settings(
        max_examples=EXAMPLES if has_input else 1,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def attempt(data: st.DataObject) -> None:
        mode = data.draw(st.sampled_from(list(GenerationMode)))
        case = data.draw(operation.as_strategy(generation_mode=mode))
        if data.draw(st.booleans()):
            case.path_parameters = {**(case.path_parameters or {}), **_known(operation)}
        if isinstance(case.body, dict) and isinstance(paths := case.body.get("paths"), list):
            case.body["paths"] = [_inside(at.models_dir, path) for path in paths]
        response = case.call(base_url=at.url, timeout=30)
        assert response.status_code != 500, response.text
        case.validate_response(response, checks=TOO_LARGE if response.status_code == 413 else PROMISES)

    attempt()


def _known(operation: APIOperation[Any, Any, Any, Any]) -> dict[str, str]:
    return {name: value for name, value in KNOWN.items() if "{" + name + "}" in operation.path}


def _inside(directory: Path, path: Any) -> Any:
    """Not the whole disk of whoever runs this."""
    return f"{directory}{path}" if isinstance(path, str) and path.startswith("/") else path
