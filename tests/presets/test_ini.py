from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llama_async_proxy.presets.ini import GLOBAL, HEADLESS, Document, IniError

SAMPLE = """\
; name: Sample
version = 1

[*]
c = 4096 ; tokens
ngl=

# of the first
[a]\t; trailing
model = /m/a b.gguf#not part of it
temp =  0.7\t

; of the second

[b]
temp = 1"""

space = st.text(" \t", max_size=2)
comment = st.builds(
    "{}{}{}".format, space, st.sampled_from(";#"), st.text(st.characters(exclude_characters="\r\n"), max_size=8)
)
key = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,4}", fullmatch=True)
value = st.text(st.characters(exclude_characters="\r\n;#", exclude_categories=["Cs"]), max_size=6).map(
    lambda v: v.strip(" \t")
)
section = st.one_of(
    st.just("*"), st.text(st.characters(exclude_characters="\r\n]", exclude_categories=["Cs"]), min_size=1, max_size=4)
).filter(lambda name: bool(name.strip()) and name == name.strip())
entry_line = st.builds("{}{}={}{}{}{}".format, key, space, space, value, space, st.one_of(st.just(""), comment))
header_line = st.builds("[{}{}]{}".format, space, section, st.one_of(space, comment))
line = st.one_of(space, comment, entry_line, entry_line, header_line)
newline = st.sampled_from(["\n", "\r\n", "\r"])
text = st.builds(
    lambda lines, last: "".join(a + b for a, b in lines) + last, st.lists(st.tuples(line, newline), max_size=12), line
)


def lines_of(document: Document) -> list[str]:
    return [line.text for line in document.lines]


@given(text)
@example(SAMPLE)
@example("[a]\r[a]\r\n\n")
def test_every_byte_survives_parsing_and_rendering(whole: str) -> None:
    assert Document.parse(whole).render() == whole


@given(st.text())
@example("[" + " " * 50)
def test_any_text_is_a_document_or_an_error_with_a_place(whole: str) -> None:
    place = (1, 1)
    try:
        assert Document.parse(whole).render() == whole
    except IniError as exc:
        place = (exc.line, exc.column)
    assert (1, 1) <= place <= (len(whole) + 1, len(whole) + 1)


@given(text, section, key, value)
def test_a_value_that_was_set_is_read_and_no_other_line_changes(whole: str, name: str, key: str, value: str) -> None:
    before = Document.parse(whole)
    after = before.with_value(name, key, value)
    again = Document.parse(after.render())
    assert again == after
    found = again.section(name)
    if not (name == HEADLESS and key == "version" and found is None):
        assert found is not None
        assert found.values()[key] == value
    old, new = lines_of(before), lines_of(after)
    assert len([line for line in old if line not in new]) <= 1, "the entry as it was"
    assert len([line for line in new if line not in old and line]) <= 2, "the entry, and the header of a new section"


@given(text, section, key)
def test_a_value_that_was_removed_is_gone_and_the_rest_is_there(whole: str, name: str, key: str) -> None:
    before = Document.parse(whole)
    after = Document.parse(before.without_value(name, key).render())
    old, new = before.section(name), after.section(name)
    expected = {k: v for k, v in old.values().items() if k != key} if old else None
    assert (new.values() if new else None) == (expected or (None if name == HEADLESS and new is None else expected))
    comments = [line.text for line in before.lines if line.is_comment]
    assert [line.text for line in after.lines if line.is_comment] == comments


@given(text, section)
def test_a_removed_section_is_gone_and_the_others_are_as_they_were(whole: str, name: str) -> None:
    before = Document.parse(whole)
    after = Document.parse(before.without_section(name).render())
    assert after.section(name) is None
    assert {s.name: s.values() for s in after.sections()} == {
        s.name: s.values() for s in before.sections() if s.name != name
    }


# --- the grammar ----------------------------------------------------------------------------------


def test_values_end_at_a_comment_and_lose_the_spaces_around() -> None:
    document = Document.parse(SAMPLE)
    assert [s.name for s in document.sections()] == [GLOBAL, "a", "b"]
    first = document.section("a")
    assert first is not None
    assert first.values() == {"model": "/m/a b.gguf", "temp": "0.7"}
    assert (first.line, first.entries[0].line, first.entries[0].column) == (9, 10, 9)


def test_the_last_section_of_a_name_replaces_earlier_ones() -> None:
    document = Document.parse("[a]\nx = 1\ny = 2\n[b]\n[a]\nx = 3\nx = 4\n")
    assert {s.name: s.values() for s in document.sections()} == {"b": {}, "a": {"x": "4"}}


def test_entries_before_the_first_header_are_a_section_of_their_own_unless_they_only_tell_the_version() -> None:
    assert Document.parse("version = 1\n[a]\n").section(HEADLESS) is None
    found = Document.parse("temp = 1\n").section(HEADLESS)
    assert found is not None
    assert found.values() == {"temp": "1"}


@pytest.mark.parametrize(
    ("line", "column", "words"),
    [
        ("  key = 1", 3, "first column"),
        ("\t[a]", 2, "first column"),
        ("[a", 3, "not closed"),
        ("[]", 2, "no name"),
        ("[ ]", 2, "no name"),
        ("[a] b", 4, "nothing but a comment"),
        ("key", 4, "no '='"),
        ("key ; = 1", 5, "letters, digits"),
        ("--ctx-size = 1", 1, "without dashes"),
        ("1a = 1", 1, "begin with a letter"),
        ("a b = 1", 3, "letters, digits"),
        ("= 1", 1, "begin with a letter"),
    ],
)
def test_what_llama_server_would_refuse_is_refused_with_its_place(line: str, column: int, words: str) -> None:
    with pytest.raises(IniError, match=words) as caught:
        Document.parse(f"[s]\n{line}\n")
    assert (caught.value.line, caught.value.column) == (2, column)


def test_a_byte_order_mark_is_named() -> None:
    with pytest.raises(IniError, match="byte order mark"):
        Document.parse("\ufeff[a]\n")


@pytest.mark.parametrize("whole", ["[" + " " * 200_000, "a = x" + " " * 200_000 + "y", "a" * 200_000, " ;" * 100_000])
def test_reading_takes_linear_time(whole: str) -> None:
    began = time.process_time()
    for _ in range(3):
        try:
            Document.parse(whole)
        except IniError:
            continue
    assert time.process_time() - began < 10, "quadratic time would take minutes"


# --- changes --------------------------------------------------------------------------------------


def test_a_changed_value_keeps_its_comment_and_its_line_end() -> None:
    document = Document.parse("[*]\r\nc = 1 ; why\r\n").with_value(GLOBAL, "c", "2")
    assert document.render() == "[*]\r\nc = 2 ; why\r\n"
    assert Document.parse("[*]\nc =; why\n").with_value(GLOBAL, "c", "2").render() == "[*]\nc = 2 ; why\n"


def test_a_new_value_follows_the_sections_last_entry() -> None:
    document = (
        Document.parse(SAMPLE).with_value("a", "top-k", "5").with_value("b", "x", "1").with_value("new", "y", "2")
    )
    assert document.render().endswith(
        "temp =  0.7\t\ntop-k = 5\n\n; of the second\n\n[b]\ntemp = 1\nx = 1\n\n[new]\ny = 2\n"
    )


def test_the_last_of_repeated_keys_is_changed_and_all_are_removed() -> None:
    document = Document.parse("[a]\nx = 1\nx = 2\n")
    assert document.with_value("a", "x", "3").render() == "[a]\nx = 1\nx = 3\n"
    assert document.without_value("a", "x").render() == "[a]\n"


def test_a_section_goes_with_its_own_comments_and_leaves_those_of_others() -> None:
    rest = "; name: Sample\nversion = 1\n\n[*]\nc = 4096 ; tokens\nngl=\n\n; of the second\n\n[b]\ntemp = 1"
    assert Document.parse(SAMPLE).without_section("a").render() == rest
    assert Document.parse(rest).without_section("b").render().endswith("ngl=\n\n; of the second\n\n")


def test_replacing_a_sections_values_keeps_comments_and_places() -> None:
    document = Document.parse("[a]\n; one\nx = 1\n; two\ny = 2\n").with_section_values("a", {"y": "3", "z": "4"})
    assert document.render() == "[a]\n; one\n; two\ny = 3\nz = 4\n"


@pytest.mark.parametrize("value", ["a;b", "#", "a\nb", "a\r", " a", "a\t"])
def test_a_value_that_could_not_be_read_back_is_refused(value: str) -> None:
    with pytest.raises(IniError, match="the value of k"):
        Document().with_value("s", "k", value)


@pytest.mark.parametrize(("name", "key"), [("", "k"), ("a]", "k"), (" a", "k"), ("a\n", "k"), ("a", "--k"), ("a", "")])
def test_names_that_could_not_be_read_back_are_refused(name: str, key: str) -> None:
    with pytest.raises(IniError):
        Document().with_value(name, key, "1")


# --- notes ----------------------------------------------------------------------------------------


def test_notes_are_comments_at_the_beginning() -> None:
    document = Document.parse("; name: A: b\n# Description:  two\n[*]\n; name: not this\n")
    assert (document.note("name"), document.note("description"), document.note("other")) == ("A: b", "two", None)


def test_notes_are_set_changed_and_removed() -> None:
    document = Document.parse("[*]\n").with_note("name", "A").with_note("description", "B")
    assert document.render() == "; name: A\n; description: B\n[*]\n"
    assert document.with_note("name", "C").with_note("description", None).render() == "; name: C\n[*]\n"
    with pytest.raises(IniError, match="one line"):
        document.with_note("name", "a\nb")
