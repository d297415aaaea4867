"""Exit statuses of every command."""

from __future__ import annotations

FAILURE = 1
USAGE_ERROR = 2
PARTLY = 3
"""Part of the work was done; the rest was named line by line."""
