"""Medians over interleaved rounds, as a table for docs/performance.md."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping

Values = Mapping[str, float]


def conditions(rounds: int) -> str:
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, medians of {rounds} interleaved rounds"


def medians(rounds: int, measure: Callable[[str], Values], names: Iterable[str]) -> dict[str, dict[str, float]]:
    """Each name measured in every round, in turn, so that all see the same machine."""
    order = list(names)
    seen: dict[str, list[Values]] = {name: [] for name in order}
    for number in range(rounds):
        for name in order if number % 2 == 0 else reversed(order):
            seen[name].append(measure(name))
    return {name: {key: statistics.median(one[key] for one in all_) for key in all_[0]} for name, all_ in seen.items()}


def table(rows: Mapping[str, Values], *, first: str, ratio_to: str = "", of: str = "") -> str:
    """One row a name. With `of` a last column: that value as a multiple of what `ratio_to` has."""
    columns = list(next(iter(rows.values())))
    base = rows.get(ratio_to, {}).get(of, 0.0)
    extra = [f"{of.split(',')[0]}, times {ratio_to}"] if base else []
    lines = [f"| {' | '.join([first, *columns, *extra])} |", "|---" * (1 + len(columns) + len(extra)) + "|"]
    for name, values in rows.items():
        cells = [_shown(values[column]) for column in columns]
        if base:
            cells.append(f"{values[of] / base:.2f}")
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines)


def _shown(value: float) -> str:
    return "-" if value < 0 else f"{value:.3g}" if value < 100 else f"{value:.0f}"
