from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_async_proxy.monitor.logtext import clean, console_line, format_line, mask, parse_line
from llama_async_proxy.records.logs import LogLevel, LogLine


@pytest.mark.parametrize(
    ("secret", "masked"),
    [
        ("Authorization: Bearer abc-123.def", "Authorization: Bearer ***"),
        ("'authorization': 'Basic dXNlcjpwYXNz', 'x': 1", "'authorization': 'Basic ***', 'x': 1"),
        ('curl -H "Authorization: token t1"', 'curl -H "Authorization: token ***"'),
        ("sent bearer eyJhbGciOiJIUzI1NiJ9.e30.x", "sent bearer ***"),
        ("api_key=abc&x=1", "api_key=***&x=1"),
        ("X-API-Key: abc", "X-API-Key: ***"),
        ('{"apiKey": "a b", "n": 1}', '{"apiKey": "***", "n": 1}'),
        ("llama-server --api-key abc --port 1", "llama-server --api-key *** --port 1"),
        ("llama-server --hf-token=abc -v", "llama-server --hf-token=*** -v"),
        ("HF_TOKEN=hf_x", "HF_TOKEN=***"),
        ("password: hunter2", "password: ***"),
        ("GET /v1/models?key=abc&limit=3", "GET /v1/models?key=***&limit=3"),
        ("https://user:pass@example.org/x", "https://user:***@example.org/x"),
        ("with sk-abcdefghijklmnopqr12 in it", "with sk-*** in it"),
    ],
)
def test_secret_is_masked(secret: str, masked: str) -> None:
    assert mask(secret) == masked


@pytest.mark.parametrize(
    "text",
    [
        "n_tokens = 123, token = 5, eos token: 2",
        "bearer token missing",
        "password is wrong",
        "a basic description of sk-learn",
        "see https://example.org/path?x=1",
        "task-0123456789abcdef0123 finished",
        "Authorization header is absent",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert mask(text) == text


def test_endless_line_is_cut_and_says_so() -> None:
    cut = clean("x" * 100_000)
    assert len(cut) < 17_000
    assert cut.endswith("more characters)")


def test_undecodable_bytes_of_a_file_name_can_be_stored() -> None:
    assert clean("bad \udcff name") == r"bad \udcff name"


def test_file_line_is_time_level_source_message() -> None:
    line = LogLine(1_769_903_999_123, LogLevel.WARN, "model:tiny", "slow")
    assert format_line(line) == "2026-01-31T23:59:59.123Z WARN model:tiny slow"


def test_message_cannot_pretend_to_be_two_lines_or_drive_a_terminal() -> None:
    line = LogLine(0, LogLevel.INFO, "service", "a\r\n2026-01-31T23:59:59.123Z ERROR service forged\x1b[2J\u2028b\\n")
    text = format_line(line)
    assert text.splitlines() == [text]
    assert text.isprintable()
    assert parse_line(text) == line


@given(
    st.builds(
        LogLine,
        timestamp_ms=st.integers(0, 253_402_300_799_999),
        level=st.sampled_from(LogLevel),
        source=st.sampled_from(["service", "model:a-b.c"]),
        message=st.text(),
    )
)
def test_line_reads_back_as_it_was_written(line: LogLine) -> None:
    text = format_line(line)
    assert "\n" not in text
    assert parse_line(text + "\n") == line


@given(st.text())
def test_parser_never_fails(text: str) -> None:
    line = parse_line(text)
    assert line is None or isinstance(line.level, LogLevel)


@given(st.text(max_size=200))
def test_cleaning_never_fails_and_is_stable(text: str) -> None:
    cleaned = clean(text)
    cleaned.encode()
    assert clean(cleaned) == cleaned


@pytest.mark.parametrize("text", ["", "hello", "2026-01-31T23:59:59.123Z", "2026-01-31T23:59:59 INFO service naive"])
def test_foreign_line_is_none(text: str) -> None:
    assert parse_line(text) is None


def test_source_with_blanks_stays_one_word() -> None:
    line = parse_line(format_line(LogLine(0, LogLevel.INFO, "model:my model\x1b", "x y")))
    assert line is not None
    assert (line.source, line.message) == ("model:my_model_", "x y")


def test_console_indents_the_rest_of_a_message() -> None:
    text = console_line(LogLine(0, LogLevel.ERROR, "service", "failed\nTraceback\x1b[0m"))
    first, second = text.split("\n")
    assert first.endswith(" error service: failed")
    assert second == r"    Traceback\x1b[0m"
