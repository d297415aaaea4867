"""Log lines as text: secrets masked, one line each, readable back. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from llama_async_proxy.records.logs import LogLevel, LogLine

_MAX_MESSAGE = 16_384
"""Characters. A model's output can be one endless line; a log page and a database row should not be."""

_MASK = "***"
_NAMES = (
    *(f"api{joint}key" for joint in ("", "-", "_", " ")),
    *(f"{kind}{joint}token" for kind in ("access", "auth", "refresh", "hf") for joint in "-_"),
    "secret",
    "password",
    "passwd",
)
_PREFIXES = ("sk-", "hf_", "ghp_", "gho_", "ghs_", "ghu_", "xoxa-", "xoxb-", "xoxp-")
"""What the keys of well-known services begin with."""
_HINTS = (*_NAMES, *_PREFIXES, "authorization", "bearer", "key=", "token=", "://")
"""Every secret that is found has one of these in its line; looking for them first makes the usual line cheap."""
_VALUE = r"[^\s\"',;&)}\]]+"
_SECRET = re.compile(
    # What a named group matches stays; what follows the group is the secret.
    rf"""
      (?P<header>authorization["']?\s*[:=]\s*["']?(?:(?:bearer|basic|token)\s+)?){_VALUE}
    | (?P<bearer>\bbearer\s+)(?=\S*\d|\S{{20}})[\w.~+/=-]{{6,}}
    | (?P<quoted>(?:{"|".join(map(re.escape, _NAMES))})["']?\s*[:=]\s*")[^"\n]+(?=")
    | (?P<named>(?:{"|".join(map(re.escape, _NAMES))})["']?\s*[:=]\s*["']?){_VALUE}
    | (?P<flag>--(?:api-key|hf-token)[ ])\S+
    | (?P<query>[?&](?:key|token)=){_VALUE}
    | (?P<userinfo>://[^\s/:@]*:)[^\s/@]+(?=@)
    | (?P<prefix>\b(?:{"|".join(map(re.escape, _PREFIXES))}))(?=[\w-]*\d)[\w-]{{16,}}
    """,
    re.IGNORECASE | re.VERBOSE,
)

_CONTROL = re.compile(r"[\\\x00-\x1f\x7f-\x9f\u2028\u2029]")
_ESCAPED = re.compile(r"\\(n|r|t|\\|x[0-9a-f]{2}|u[0-9a-f]{4})")
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t", "\\": r"\\"}
_LONG = {escape[1]: character for character, escape in _SHORT.items()}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def mask(text: str) -> str:
    """`text` with API keys, bearer tokens and passwords replaced by ***."""
    lowered = text.lower()
    if not any(hint in lowered for hint in _HINTS):
        return text
    return _SECRET.sub(lambda match: match[match.lastgroup or 0] + _MASK, text)


def clean(message: str) -> str:
    """What may be logged of `message`: masked, of bounded length, encodable as UTF-8."""
    if len(message) > _MAX_MESSAGE:
        message = f"{message[:_MAX_MESSAGE]}… ({len(message) - _MAX_MESSAGE} more characters)"
    return mask(message).encode("utf-8", "backslashreplace").decode()


def timestamp(milliseconds: int) -> str:
    """ISO 8601 in UTC with milliseconds: 2026-01-31T23:59:59.123Z."""
    moment = _EPOCH + timedelta(milliseconds=milliseconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def format_line(line: LogLine) -> str:
    """One line of a log file, without its end: time, level, source and message, in which control characters are
    escaped as in Python, so that no message can pretend to be two lines.
    """
    source = _source(line)
    return f"{timestamp(line.timestamp_ms)} {line.level.upper()} {source} {_CONTROL.sub(_escape, line.message)}"


def parse_line(text: str) -> LogLine | None:
    """What `format_line` wrote; None for anything else."""
    time, _, rest = text.rstrip("\n").partition(" ")
    level, _, rest = rest.partition(" ")
    source, separator, message = rest.partition(" ")
    try:
        moment, severity = datetime.fromisoformat(time), LogLevel(level.lower())
    except ValueError:
        return None
    if not separator or moment.tzinfo is None:
        return None
    milliseconds = (moment - _EPOCH) // timedelta(milliseconds=1)
    return LogLine(milliseconds, severity, source, _ESCAPED.sub(_unescape, message))


def console_line(line: LogLine) -> str:
    """For a terminal: local time, and the further lines of a message indented so that they read as its own."""
    moment = datetime.fromtimestamp(line.timestamp_ms / 1000).astimezone()
    message = "\n    ".join(_CONTROL.sub(_escape_for_terminal, part) for part in line.message.split("\n"))
    return f"{moment:%H:%M:%S} {line.level:<5} {_source(line)}: {message}"


def _source(line: LogLine) -> str:
    """One word, whatever a model's file was called."""
    return _CONTROL.sub("_", "_".join(line.source.split())) or "-"


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def _escape_for_terminal(match: re.Match[str]) -> str:
    return match[0] if match[0] in "\\\t" else _escape(match)


def _unescape(match: re.Match[str]) -> str:
    code = match[1]
    return _LONG.get(code) or chr(int(code[1:], 16))
