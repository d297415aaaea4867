"""Frozen data that crosses rooms. No behaviour beyond trivial derived facts.

Units are part of the name where a bare number could be misread: `_ms` milliseconds (timestamps: since
the Unix epoch, UTC), `_s` seconds, `_bytes` bytes, `_percent` 0-100. None always means "not known".
"""
