"""How many inference requests have ended, and what they took, by model and outcome, since the service started."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from msgspec import Struct, field

from llama_async_proxy.records.requests import RequestRecord

MAX_MODELS = 1000
"""Names beyond these are counted together: they are the clients' own, and each would stay for ever."""
OTHER = "other"


class InferenceTotals(Struct):
    """Counters that only grow. Owned by the event loop."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By model and status."""
    prompt_tokens: Counter[str] = field(default_factory=Counter)
    """By model, as are the others."""
    completion_tokens: Counter[str] = field(default_factory=Counter)
    cached_tokens: Counter[str] = field(default_factory=Counter)
    duration_ms: Counter[str] = field(default_factory=Counter)
    _models: set[str] = field(default_factory=set)

    def add(self, records: Iterable[RequestRecord]) -> None:
        for record in records:
            self._add(record)

    def _add(self, record: RequestRecord) -> None:
        model = self._label(record)
        self.requests[model, record.status] += 1
        self.prompt_tokens[model] += record.prompt_tokens or 0
        self.completion_tokens[model] += record.completion_tokens or 0
        self.cached_tokens[model] += record.cached_tokens or 0
        self.duration_ms[model] += round(record.total_ms)

    def _label(self, record: RequestRecord) -> str:
        if record.status == 404 or not record.model:  # the name of nothing
            return OTHER
        if record.model not in self._models:
            if len(self._models) >= MAX_MODELS:
                return OTHER
            self._models.add(record.model)
        return record.model
