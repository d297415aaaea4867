"""Base classes of the schemas of /api, the envelopes of answers, and common types.

Memory sizes are MiB, disk and file sizes bytes; percentages are 0 to 100, `errorRate` is 0 to 1; times are ISO 8601 in
UTC. An unknown value is absent, except in the routes that say null.
"""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from llama_async_proxy.api.units import iso_now

Data = TypeVar("Data")
Option = str | int | float | bool
Options = dict[str, Option]
OptionChanges = dict[str, Option | None]
"""New values by name; None removes an option."""
Text = Annotated[str, Field(max_length=4096)]


class StrictModel(BaseModel):
    """Types are checked, never converted: "8134" is no port."""

    model_config = ConfigDict(strict=True, populate_by_name=True)


class CamelModel(StrictModel):
    model_config = ConfigDict(alias_generator=to_camel)


class Envelope(StrictModel, Generic[Data]):
    success: Literal[True] = True
    data: Data
    timestamp: str = Field(default_factory=iso_now)


class RestAnswer(Envelope[Data], Generic[Data]):
    """Every successful answer."""

    message: str | None = None


class ErrorContent(StrictModel):
    code: str
    message: str = Field(description="One sentence for people: what failed, why, what to do.")
    type: str = Field(description="What clients of the OpenAI API look for.")
    details: str | None = None


class ErrorAnswer(StrictModel):
    """Every other answer."""

    success: Literal[False] = False
    error: ErrorContent
    timestamp: str
