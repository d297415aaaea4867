from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from sqlalchemy import select

from llama_async_proxy.errors import Conflict, InvalidInput, NotFound, StoreUnavailable
from llama_async_proxy.records.models import Model, ModelDraft, ModelFacts, ModelKind, Variant
from llama_async_proxy.store.database import Database
from llama_async_proxy.store.models import MAX_NAME_LENGTH, RESERVED_SLUGS, ModelTable, file_stem, register, slugify
from llama_async_proxy.store.schema import variants
from llama_async_proxy.store.writer import Writer
from store.builders import model_file, registered, scanned


class Clock:
    now_ms = 1_000_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def table(database: Database, writer: Writer, clock: Clock) -> AsyncIterator[ModelTable]:
    table = ModelTable(database, writer, clock)
    yield table
    assert ModelTable(database, writer, clock).all() == table.all(), "what is in memory is what is stored"


async def test_a_model_is_stored_whole(table: ModelTable) -> None:
    draft = registered(
        "/m/a.gguf",
        name="  My model ",
        description="mine",
        version="1",
        family="tiny",
        quantization="Q8_0",
        context_size=4096,
        options={"temp": 0.5, "mlock": True, "chat-template": "x", "threads": 2},
    )
    model = await table.add(draft)
    assert model == Model(
        id=1,
        slug="My-model",
        name="My model",
        path="/m/a.gguf",
        origin=draft.origin,
        facts=draft.file.facts,
        size_bytes=draft.file.size_bytes,
        mtime_ns=draft.file.mtime_ns,
        description="mine",
        version="1",
        family="tiny",
        quantization="Q8_0",
        context_size=4096,
        options=draft.options,
        created_at_ms=1_000_000,
        updated_at_ms=1_000_000,
    )
    assert table.all() == (model,)
    assert table.get(1) is table.by_slug("My-model") is table.by_path("/m/a.gguf") is model


async def test_shards_and_projector_are_stored(table: ModelTable) -> None:
    shards = ("/m/big-00001-of-00002.gguf", "/m/big-00002-of-00002.gguf")
    file = model_file(shards[0], shards=shards, mmproj_path="/m/mmproj.gguf")
    model = await table.add(ModelDraft(file, scanned("").origin))
    assert (model.slug, model.name) == ("big", "big")
    assert (model.shards, model.mmproj_path) == (shards, "/m/mmproj.gguf")


@pytest.mark.parametrize("unknown", [0, -1, 7, 2**63, 2**200])
async def test_an_unknown_id_is_not_found_however_large(table: ModelTable, unknown: int) -> None:
    for attempt in (table.update(unknown, name="x"), table.delete(unknown), table.refresh(unknown, model_file())):
        with pytest.raises(NotFound, match="Model not found"):
            await attempt
    with pytest.raises(NotFound) as raised:
        table.get(unknown)
    assert (raised.value.resource, raised.value.identifier) == ("model", unknown)
    table.touch(unknown, 1)


async def test_ids_are_never_reused(table: ModelTable, database: Database, writer: Writer) -> None:
    for expected in (1, 2, 3):
        assert (await table.add(scanned("/m/a.gguf"))).id == expected
        deleted = await table.delete(expected)
        assert deleted.id == expected
        assert table.all() == ()


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "name", "slug"),
    [
        ("/m/Llama-3.2-1B_Q4_K_M.gguf", None, "Llama-3.2-1B_Q4_K_M"),
        ("/m/big-00001-of-00009.gguf", None, "big"),
        ("/m/x.gguf", "Größe & Übermaß / 7B", "Größe-Übermaß-7B"),
        ("/m/qwen.gguf", "通义千问", "通义千问"),
        ("/m/模型.gguf", None, "模型"),
        ("/m/***.gguf", None, "model"),
        ("/m/x.gguf", "../..", "x"),
        ("/m/Load.gguf", None, "Load-2"),
        ("/m/x.gguf", "SSE", "SSE-2"),
    ],
)
async def test_slugs_come_from_the_name_then_the_stem(
    table: ModelTable, file: str, name: str | None, slug: str
) -> None:
    assert (await table.add(registered(file, name=name))).slug == slug


@given(st.text(max_size=300))
def test_slugs_are_safe_in_urls(text: str) -> None:
    slug = slugify(text)
    assert all(character.isalnum() or character in "._~+@=-" or unicodedata.combining(character) for character in slug)
    assert slug == slug.strip("-.")
    assert len(slug) <= 100
    assert slugify(slug) == slug


@given(st.lists(st.sampled_from(["a", "A", "a-2", "load", "ß", "SS", "é", "e\u0301", "通"]), max_size=12))
def test_scanned_files_always_get_unique_names_and_slugs(stems: list[str]) -> None:
    models: list[Model] = []
    for i, stem in enumerate(stems):
        models.append(replace(register(scanned(f"/{i}/{stem}.gguf"), models, 1), id=i + 1))
    assert len({m.name.casefold() for m in models}) == len(models)
    assert len({m.slug.casefold() for m in models} - RESERVED_SLUGS) == len(models)


async def test_a_slug_clash_gets_a_number(table: ModelTable) -> None:
    names = ["My Model", "my_model", "my-model", "my model 2", "MY*MODEL"]
    models = await table.add_many([registered(f"/m/{i}.gguf", name=name) for i, name in enumerate(names)])
    assert [m.slug for m in models] == ["My-Model", "my_model", "my-model-2", "my-model-2-2", "MY-MODEL-3"]


async def test_scanned_files_of_one_name_are_numbered(table: ModelTable) -> None:
    paths = ["/a/Tiny.gguf", "/b/tiny.gguf", "/c/TINY.bin"]
    models = [await table.add(scanned(path)) for path in paths]
    assert [m.name for m in models] == ["Tiny", "tiny-2", "TINY-3"]
    assert [m.slug for m in models] == ["Tiny", "tiny-2", "TINY-3"]


@pytest.mark.parametrize("name", ["größe", "GRÖSSE", "GRO\u0308ßE"])
async def test_registering_a_name_in_use_names_the_other_model(table: ModelTable, name: str) -> None:
    await table.add(registered("/m/a.gguf", name="Größe"))
    with pytest.raises(Conflict, match=r"'Größe' already \(id 1, /m/a\.gguf\)\. Choose another name"):
        await table.add(registered("/m/b.gguf", name=name))


@pytest.mark.parametrize("draft", [scanned("/m/a.gguf"), registered("/m/a.gguf", name="other")])
async def test_registering_a_path_twice_names_the_other_model(table: ModelTable, draft: ModelDraft) -> None:
    await table.add(scanned("/m/a.gguf"))
    with pytest.raises(Conflict, match=r"/m/a\.gguf is registered already, as model 'a' \(id 1\)"):
        await table.add(draft)


@pytest.mark.parametrize(
    "bad", [registered("/m/a.gguf", name="x"), registered("/m/c.gguf", name="FIRST"), registered("/m/c.gguf", name=" ")]
)
async def test_a_batch_with_one_bad_draft_adds_none(table: ModelTable, bad: ModelDraft) -> None:
    before = table.all()
    with pytest.raises((Conflict, InvalidInput)):
        await table.add_many([registered("/m/a.gguf", name="first"), registered("/m/b.gguf"), bad])
    assert table.all() is before


@pytest.mark.parametrize("name", ["", " \t", "x" * (MAX_NAME_LENGTH + 1), "\ud800"])
async def test_unusable_names_are_refused(table: ModelTable, name: str) -> None:
    model = await table.add(scanned("/m/a.gguf"))
    with pytest.raises(InvalidInput):
        await table.add(registered("/m/b.gguf", name=name))
    with pytest.raises(InvalidInput):
        await table.update(model.id, name=name)
    assert table.all() == (model,)


def test_stems() -> None:
    assert file_stem("/m/a.b-00001-of-00010.gguf") == "a.b"
    assert file_stem("/m/a-1-of-2.gguf") == "a-1-of-2"


# --- changes --------------------------------------------------------------------------------------


async def test_update_changes_what_it_is_given_and_nothing_else(table: ModelTable, clock: Clock) -> None:
    model = await table.add(registered("/m/a.gguf", name="old", context_size=1024))
    clock.now_ms += 5
    changes: dict[str, Any] = {
        "name": "New",
        "description": "d",
        "version": "2",
        "family": "f",
        "quantization": "Q2_K",
        "context_size": None,
        "options": {"temp": 1},
        "aliases": ("b", "a", "b"),
        "is_favorite": True,
        "is_pinned": True,
    }
    updated = await table.update(model.id, **changes)
    assert updated == replace(model, **changes | {"aliases": ("b", "a")}, updated_at_ms=clock.now_ms)
    assert updated.slug == "old", "a rename never changes the slug"
    assert table.get(model.id) is updated


BOLD = Variant("Bold", {"temperature": 1.5, "stop": ["x"], "nested": {"a": None}}, "Be bold.")


async def test_variants_are_stored_in_order_and_go_with_their_model(table: ModelTable, database: Database) -> None:
    model = await table.add(scanned("/m/a.gguf"))
    await table.update(model.id, variants=(BOLD, Variant("bald"), Variant("  a third ")))
    changed = await table.update(model.id, description="else")
    assert changed.variants == (BOLD, Variant("bald"), Variant("a third"))
    await table.update(model.id, variants=(Variant("bald"), BOLD))
    assert [variant.name for variant in table.get(model.id).variants] == ["bald", "Bold"]
    await table.delete(model.id)
    assert database.read_now(lambda connection: connection.execute(select(variants)).all()) == []


@pytest.mark.parametrize("name", ["A", "other-name", "Mine", "bold"])
async def test_the_name_of_a_variant_must_be_unique(table: ModelTable, name: str) -> None:
    model, other = await table.add(scanned("/m/a.gguf")), await table.add(scanned("/m/b.gguf"))
    await table.update(model.id, aliases=("mine",), variants=(BOLD,))
    await table.update(other.id, name="Other-Name", aliases=("theirs",))
    with pytest.raises((InvalidInput, Conflict), match="already"):
        await table.update(model.id, variants=(BOLD, Variant(name)))
    assert table.get(model.id).variants == (BOLD,)


async def test_no_other_model_takes_the_name_of_a_variant(table: ModelTable) -> None:
    model, other = await table.add(scanned("/m/a.gguf")), await table.add(scanned("/m/b.gguf"))
    await table.update(model.id, variants=(BOLD,))
    for changes in ({"name": "BOLD"}, {"aliases": ("bold",)}, {"variants": (Variant("bOLD"),)}):
        with pytest.raises(Conflict, match="has the name 'bold' already"):
            await table.update(other.id, **changes)
    with pytest.raises(Conflict):
        await table.add(registered("/m/c.gguf", name="Bold"))
    found = await table.add(scanned("/m/bold.gguf"))
    assert (found.name, found.slug) == ("bold-2", "bold-2")


async def test_a_model_may_keep_or_recase_its_own_name(table: ModelTable) -> None:
    model = await table.add(registered("/m/a.gguf", name="Name"))
    assert (await table.update(model.id, name="NAME")).name == "NAME"


async def test_renaming_to_a_name_in_use_changes_nothing(table: ModelTable) -> None:
    await table.add(scanned("/m/a.gguf"))
    model = await table.add(scanned("/m/b.gguf"))
    with pytest.raises(Conflict, match="'a' already"):
        await table.update(model.id, name="A", description="new")
    assert table.get(model.id) is model


async def test_refresh_updates_the_file_and_keeps_fields_set_by_users(table: ModelTable) -> None:
    model = await table.add(registered("/m/a.gguf", name="mine", quantization="Q8_0"))
    facts = ModelFacts("qwen3", ModelKind.EMBEDDING, embedding_length=768)
    file = model_file("/m/a.gguf", size_bytes=5, mtime_ns=6, facts=facts, mmproj_path="/m/p.gguf")
    refreshed = await table.refresh(model.id, file)
    assert refreshed == replace(
        model,
        facts=facts,
        size_bytes=5,
        mtime_ns=6,
        mmproj_path="/m/p.gguf",
        updated_at_ms=refreshed.updated_at_ms,
    )


async def test_two_writers_of_one_name_cannot_both_win(table: ModelTable) -> None:
    drafts = [registered(f"/m/{i}.gguf", name="same") for i in range(8)]
    results = await asyncio.gather(*map(table.add, drafts), return_exceptions=True)
    assert sum(isinstance(result, Model) for result in results) == 1
    assert sum(isinstance(result, Conflict) for result in results) == 7


async def test_changes_made_at_once_all_hold(table: ModelTable) -> None:
    models = await table.add_many([scanned(f"/m/{i}.gguf") for i in range(20)])
    await asyncio.gather(
        *(table.update(m.id, is_favorite=True) for m in models),
        *(table.update(m.id, context_size=m.id) for m in models),
    )
    assert all(m.is_favorite and m.context_size == m.id for m in table.all())


async def test_a_change_whose_caller_was_cancelled_is_published(table: ModelTable, writer: Writer) -> None:
    model = await table.add(scanned("/m/a.gguf"))
    caller = asyncio.create_task(table.update(model.id, name="renamed"))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    await writer.flush()
    # Whether it still ran is a matter of time; the fixture checks that memory and file agree.


async def test_the_snapshot_is_the_same_tuple_until_something_changes(table: ModelTable, writer: Writer) -> None:
    model = await table.add(scanned("/m/a.gguf"))
    before = table.all()
    assert table.all() is before
    with pytest.raises(NotFound):
        await table.delete(99)
    assert table.all() is before
    await table.update(model.id, is_pinned=True)
    assert table.all() is not before
    assert before == (model,)


async def test_touch_is_stored_in_batches_and_at_most_every_ten_seconds(table: ModelTable, writer: Writer) -> None:
    a, b = await table.add_many([scanned("/m/a.gguf"), scanned("/m/b.gguf")])
    table.touch(b.id, 70_000)
    table.touch(a.id, 50_000)
    table.touch(b.id, 60_000)
    await writer.flush()
    assert [m.last_used_at_ms for m in table.all()] == [50_000, 70_000]
    before = table.all()
    table.touch(a.id, 59_999)
    await writer.flush()
    assert table.all() is before
    table.touch(a.id, 60_000)
    table.touch(b.id, 95_000)
    await table.delete(b.id)
    await writer.flush()
    assert [m.last_used_at_ms for m in table.all()] == [60_000]


async def test_options_of_a_model_cannot_be_changed_from_outside(table: ModelTable) -> None:
    options = {"temp": 1.0}
    model = await table.add(registered("/m/a.gguf", options=options))
    options["temp"] = 2.0
    assert model.options == {"temp": 1.0}
    changed = await table.update(model.id, options=options)
    options["temp"] = 3.0
    assert changed.options == {"temp": 2.0}


async def test_a_write_that_fails_leaves_memory_as_it_was(database: Database, clock: Clock) -> None:
    writer = Writer(database)
    table = ModelTable(database, writer, clock)
    model = await table.add(scanned("/m/a.gguf"))
    await writer.close()
    for attempt in (table.add(scanned("/m/b.gguf")), table.update(model.id, name="x"), table.delete(model.id)):
        with pytest.raises(StoreUnavailable):
            await attempt
    assert table.all() == (model,)
