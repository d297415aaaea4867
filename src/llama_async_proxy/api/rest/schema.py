"""What every route of /api has in common: how bodies are checked, the envelopes, numbers and times.

Sizes of memory are MiB, of disks and files bytes; percentages 0 to 100, `errorRate` 0 to 1; times ISO 8601 in UTC.
A field that is not known is absent, but for the ones that say null.
"""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from llama_async_proxy.api.units import iso_now

Data = TypeVar("Data")
Option = str | int | float | bool
Text = Annotated[str, Field(max_length=4096)]


class Wire(BaseModel):
    """Types are checked, never converted: "8134" is no port."""

    model_config = ConfigDict(strict=True, populate_by_name=True)


class CamelWire(Wire):
    model_config = ConfigDict(alias_generator=to_camel)


class Envelope(Wire, Generic[Data]):
    success: Literal[True] = True
    data: Data
    timestamp: str = Field(default_factory=iso_now)


class Answer(Envelope[Data], Generic[Data]):
    """Every successful answer."""

    message: str | None = None


class ErrorContent(Wire):
    code: str
    message: str = Field(description="One sentence for people: what failed, why, what to do.")
    type: str = Field(description="What clients of the OpenAI API look for.")
    details: str | None = None


class ErrorAnswer(Wire):
    """Every other answer."""

    success: Literal[False] = False
    error: ErrorContent
    timestamp: str
