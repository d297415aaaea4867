"""The chat routes, asked as chat clients ask them; what answers is the quick program in llama-server's place."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from api.harness import ServiceHarness, client, house
from llama_async_proxy.store.database import Database

PICTURE = b"\x89PNG of a llama"
ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


@pytest.fixture
async def at(tmp_path: Path, model_files: Path) -> AsyncIterator[ServiceHarness]:
    async with house(tmp_path, model_files) as at:
        yield at


async def begin(at: ServiceHarness, title: str | None = "Talk") -> int:
    status, answer = await at.call("POST", "/api/conversations", {"title": title, "model": "chat.gguf"})
    assert status == 201
    chat: int = answer["conversation_id"]
    return chat


async def say(at: ServiceHarness, chat: int, message: str, **more: Any) -> tuple[int, Any]:
    body = {"conversation_id": chat, "message": message, "model": "chat.gguf", **more}
    return await at.call("POST", "/api/chat", body)


def asked(chat: int, message: str) -> dict[str, object]:
    return {"conversation_id": chat, "message": message, "model": "chat.gguf", "stream": True}


Event = tuple[str, str, Any]
"""(id, name, data)"""


def parsed(text: str) -> list[Event]:
    events = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            events.append((lines.get("id", ""), lines["event"], json.loads(lines["data"])))
    return events


async def next_event(response: aiohttp.ClientResponse) -> Event:
    while True:
        block = (await response.content.readuntil(b"\n\n")).decode()
        if events := parsed(block):
            return events[0]


# --- conversations ----------------------------------------------------------------------------------------------------


async def test_a_conversation_is_made_listed_renamed_and_deleted(at: ServiceHarness) -> None:
    first, second = await begin(at, "One"), await begin(at, "Two")
    status, listed = await at.call("GET", "/api/conversations")
    assert (status, [c["id"] for c in listed["conversations"]]) == (200, [second, first])
    shown = listed["conversations"][0]
    assert (shown["title"], shown["model"]) == ("Two", "chat.gguf")
    assert ISO.fullmatch(shown["created_at"])
    assert ISO.fullmatch(shown["updated_at"])
    answer = await at.call("PUT", f"/api/conversations/{first}", {"title": " Eins "})
    assert answer == (200, {"success": True, "title": "Eins"})
    assert [c["title"] for c in (await at.call("GET", "/api/conversations?limit=1"))[1]["conversations"]] == ["Eins"]
    assert [c["title"] for c in (await at.call("GET", "/api/conversations?offset=1"))[1]["conversations"]] == ["Two"]
    assert await at.call("DELETE", f"/api/conversations/{first}") == (200, {"success": True})
    status, answer = await at.call("GET", f"/api/conversations/{first}")
    assert status == 404
    assert answer == {
        "success": False,
        "error": "Conversation not found",
        "code": "NOT_FOUND",
        "resource": "conversation",
        "id": first,
    }


async def test_an_empty_conversation_has_empty_statistics(at: ServiceHarness) -> None:
    chat = await begin(at)
    _, answer = await at.call("GET", f"/api/conversations/{chat}")
    assert answer["messages"] == []
    stats = {"total_messages": 0, "assistant_messages": 0, "avg_response_time": None, "total_tokens": 0}
    assert answer["stats"] == stats
    assert await at.call("GET", f"/api/stats/{chat}") == (200, {"summary": stats, "by_role": []})


async def test_options_and_the_system_prompt_are_a_conversations_own(at: ServiceHarness) -> None:
    chat = await begin(at)
    changes = {"system_prompt": "Be brief.", "options": {"temperature": 0.5, "stop": ["x"]}, "pinned": True}
    assert (await at.call("PUT", f"/api/conversations/{chat}", changes))[0] == 200
    shown = (await at.call("GET", f"/api/conversations/{chat}"))[1]["conversation"]
    assert (shown["system_prompt"], shown["pinned"], shown["options"]["temperature"]) == ("Be brief.", True, 0.5)
    assert (shown["options"]["stop"], shown["options"]["top_p"]) == (["x"], None)
    await at.call("PUT", f"/api/conversations/{chat}", {"system_prompt": None, "archived": True})
    shown = (await at.call("GET", f"/api/conversations/{chat}"))[1]["conversation"]
    assert (shown["system_prompt"], shown["archived"], shown["title"]) == (None, True, "Talk")
    assert (await at.call("GET", "/api/conversations"))[1]["conversations"] == []
    assert len((await at.call("GET", "/api/conversations?archived=true"))[1]["conversations"]) == 1


WRONG: list[tuple[str, str, Any, str, str]] = [
    ("POST", "/api/conversations", {"model": "m"}, "title", "Missing required field: title"),
    ("POST", "/api/conversations", {"title": "  ", "model": "m"}, "title", "title: must not be blank"),
    ("POST", "/api/conversations", {"title": "x" * 101, "model": "m"}, "title", "at most 100 characters"),
    ("POST", "/api/conversations", {"title": "x", "model": " "}, "model", "must not be blank"),
    ("POST", "/api/conversations", {"title": 7, "model": "m"}, "title", "valid string"),
    ("POST", "/api/conversations", {"title": "x", "model": "m", "options": {"temp": 1}}, "options.temp", "permitted"),
    ("POST", "/api/conversations", {"title": "x", "model": "m", "options": {"top_p": 2}}, "top_p", "between 0 and 1"),
    ("GET", "/api/conversations?limit=0", None, "limit", "positive"),
    ("GET", "/api/conversations?limit=x", None, "limit", "integer"),
    ("GET", "/api/conversations?offset=-1", None, "offset", "0 or more"),
    ("GET", "/api/conversations/abc", None, "conversation_id", "integer"),
    ("PUT", "/api/conversations/1", {"title": ""}, "title", "must not be blank"),
    ("POST", "/api/chat", {"message": "x", "model": "m"}, "conversation_id", "Missing required field: conversation_id"),
    ("POST", "/api/chat", {"conversation_id": 1, "model": "m"}, "message", "Missing required field: message"),
    ("POST", "/api/chat", {"conversation_id": 1, "message": " ", "model": "m"}, "message", "must not be blank"),
    ("POST", "/api/chat", {"conversation_id": "1", "message": "x", "model": "m"}, "conversation_id", "integer"),
    ("GET", "/api/search", None, "q", "Missing required field: q"),
    ("GET", "/api/search?q=%20", None, "q", "must not be blank"),
    ("GET", "/api/search?q=x&limit=0", None, "limit", "between 1 and"),
    ("GET", "/api/stats?days=0", None, "days", "between 1 and"),
    ("POST", "/api/conversations/import", {"x": 1}, "file", "must be an export"),
]


async def test_what_is_wrong_is_named_and_changes_nothing(at: ServiceHarness) -> None:
    await begin(at)
    for method, path, body, field, text in WRONG:
        status, answer = await at.call(method, path, body)
        assert (status, answer["success"], answer["code"]) == (400, False, "VALIDATION_ERROR"), path
        assert (answer["field"], text in answer["error"]) == (field, True), answer
    [chat] = (await at.call("GET", "/api/conversations"))[1]["conversations"]
    assert chat["title"] == "Talk"


async def test_what_is_not_there_is_not_found(at: ServiceHarness) -> None:
    body = {"conversation_id": 99, "message": "x", "model": "chat.gguf"}
    calls = [
        ("GET", "/api/conversations/99", None), ("GET", f"/api/conversations/{10**30}", None),
        ("GET", "/api/conversations/-1", None), ("PUT", "/api/conversations/99", {"title": "x"}),
        ("DELETE", "/api/conversations/99", None), ("POST", "/api/chat", body), ("GET", "/api/stats/99", None),
        ("POST", "/api/conversations/99/stop", None), ("GET", "/api/conversations/99/stream", None),
        ("GET", "/api/conversations/99/export", None), ("POST", "/api/conversations/99/messages/1/choose", None),
    ]  # fmt: skip
    for method, path, sent in calls:
        status, answer = await at.call(method, path, sent)
        assert (status, answer["code"], answer["resource"]) == (404, "NOT_FOUND", "conversation"), path
    status, answer = await at.call("POST", "/api/chat", {**body, "conversation_id": await begin(at), "model": "chaat"})
    assert (status, answer["resource"], answer["id"]) == (404, "model", "chaat")
    assert "chat" in answer["details"]


# --- chat -------------------------------------------------------------------------------------------------------------


async def test_an_answer_comes_with_its_metrics_and_is_stored(at: ServiceHarness) -> None:
    chat = await begin(at)
    status, answer = await say(at, chat, "ponder well then speak")
    assert status == 200
    assert (answer["response"], answer["reasoning"]) == (" speak", "ponder well then")
    assert (answer["model"], answer["estimated_tokens"], answer["status"]) == ("chat.gguf", 4, "complete")
    assert answer["metrics"] == {
        "completion_tokens": 4,
        "prompt_tokens": 1,
        "total_tokens": 5,
        "tokens_per_second": 50.0,
        "omitted_messages": 0,
    }
    assert answer["response_time_ms"] > 0
    _, shown = await at.call("GET", f"/api/conversations/{chat}")
    said, answered = shown["messages"]
    assert (said["role"], said["content"], said["model"], said["response_time_ms"]) == (
        "user", "ponder well then speak", None, None,
    )  # fmt: skip
    assert (answered["role"], answered["conversation_id"], answered["model"]) == ("assistant", chat, "chat.gguf")
    assert answered["response_time_ms"] == answer["response_time_ms"]
    assert ISO.fullmatch(answered["timestamp"])
    assert shown["stats"]["total_tokens"] == 6 + 4
    _, stats = await at.call("GET", f"/api/stats/{chat}")
    assert [role["role"] for role in stats["by_role"]] == ["user", "assistant"]
    assert stats["by_role"][0]["avg_length"] == 22.0
    assert stats["summary"]["avg_response_time"] == stats["by_role"][1]["avg_response_time"]


async def test_a_stream_begins_brings_tokens_and_ends_with_the_metrics(at: ServiceHarness) -> None:
    chat = await begin(at)
    async with at.http.post(f"{at.url}/api/chat", json=asked(chat, "one two three")) as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        events = parsed((await response.read()).decode())
    names = [name for _, name, _ in events]
    assert (names[0], names[-1], set(names[1:-1])) == ("start", "done", {"token"})
    assert "".join(data["content"] for _, name, data in events if name == "token") == "one two three"
    done = events[-1][2]
    assert (done["response"], done["metrics"]["completion_tokens"]) == ("one two three", 3)
    assert events[0][2]["message_id"] == done["message_id"]


async def test_an_answer_goes_on_without_its_reader_who_may_come_back(at: ServiceHarness, tmp_path: Path) -> None:
    chat, gate = await begin(at), tmp_path / "gate"
    async with at.http.post(f"{at.url}/api/chat", json=asked(chat, f"wait {gate}")) as response:
        assert (await next_event(response))[1] == "start"
        number, _, token = await next_event(response)
        assert token["content"] == "wait"
    listed = (await at.call("GET", "/api/conversations"))[1]["conversations"]
    assert listed[0]["answering"] is True
    url = f"{at.url}/api/conversations/{chat}/stream"
    async with at.http.get(url) as whole, at.http.get(url, headers={"Last-Event-ID": number}) as rest:
        assert [(await next_event(reader))[1] for reader in (whole, rest)] == ["start", "start"]
        gate.touch()
        texts = [parsed((await reader.read()).decode()) for reader in (whole, rest)]
    contents = ["".join(d["content"] for _, name, d in events if name == "token") for events in texts]
    assert contents == [f"wait {gate}", f" {gate}"]
    last_id, name, done = texts[0][-1]
    assert (name, done["response"]) == ("done", f"wait {gate}")
    async with at.http.get(url, headers={"Last-Event-ID": number}) as response:  # now from the database
        assert parsed((await response.read()).decode())[-1][2]["response"] == f"wait {gate}"
    for headers in ({}, {"Last-Event-ID": last_id}):
        async with at.http.get(url, headers=headers) as response:
            assert response.status == 204
    status, answer = await at.call("GET", f"/api/conversations/{chat}/stream", headers={"Last-Event-ID": "x"})
    assert (status, answer["field"]) == (400, "Last-Event-ID")


async def test_stop_ends_an_answer_and_keeps_what_there_is(at: ServiceHarness, tmp_path: Path) -> None:
    chat = await begin(at)
    async with at.http.post(f"{at.url}/api/chat", json=asked(chat, f"wait {tmp_path}/never")) as response:
        await next_event(response)
        await next_event(response)
        status, stopped = await at.call("POST", f"/api/conversations/{chat}/stop")
        assert (status, stopped["stopped"], stopped["message"]["content"]) == (200, True, "wait")
        assert (await next_event(response))[2]["status"] == "stopped"
    assert (await at.call("POST", f"/api/conversations/{chat}/stop"))[1] == {
        "success": True,
        "stopped": False,
        "message": None,
    }


async def test_deleting_a_conversation_ends_its_answer(at: ServiceHarness, tmp_path: Path) -> None:
    chat = await begin(at)
    async with at.http.post(f"{at.url}/api/chat", json=asked(chat, f"wait {tmp_path}/never")) as response:
        await next_event(response)
        await next_event(response)
        assert (await at.call("DELETE", f"/api/conversations/{chat}"))[0] == 200
        _, name, error = await next_event(response)
    assert (name, error["code"], error["type"]) == ("error", "NOT_FOUND", "error")


async def test_a_failure_of_the_engine_is_an_error_and_never_an_answer(at: ServiceHarness) -> None:
    chat = await begin(at)
    for more in ({}, {"stream": True}):
        status, answer = await say(at, chat, "fail please", **more)
        assert (status, answer["success"], answer["code"]) == (500, False, "LLAMACPP_ERROR")
        assert "File Not Found" in answer["error"]
    _, shown = await at.call("GET", f"/api/conversations/{chat}")
    assert [message["role"] for message in shown["messages"]] == ["user", "user"]
    status, answer = await say(at, await begin(at), "break off")
    assert (status, answer["code"]) == (500, "LLAMACPP_ERROR")


async def test_sends_to_one_conversation_are_answered_in_order(at: ServiceHarness) -> None:
    chat = await begin(at)
    answers = await asyncio.gather(*(say(at, chat, f"word{number}") for number in range(4)))
    assert [answer["response"] for _, answer in answers] == [f"word{number}" for number in range(4)]
    messages = (await at.call("GET", f"/api/conversations/{chat}"))[1]["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant"] * 4
    assert all(a["content"] == b["content"] for a, b in zip(messages[::2], messages[1::2], strict=True))


async def test_branches_are_made_by_editing_and_regenerating_and_can_be_chosen(at: ServiceHarness) -> None:
    chat = await begin(at)
    await say(at, chat, "first words")
    said, answered = (await at.call("GET", f"/api/conversations/{chat}"))[1]["messages"]
    at_message = f"/api/conversations/{chat}/messages"
    status, again = await at.call("POST", f"{at_message}/{answered['id']}/regenerate")
    assert (status, again["response"]) == (200, "first words")
    status, edited = await at.call("POST", f"{at_message}/{said['id']}/edit", {"message": "other words"})
    assert (status, edited["response"]) == (200, "other words")
    _, shown = await at.call("GET", f"/api/conversations/{chat}")
    assert [m["content"] for m in shown["messages"]] == ["other words", "other words"]
    _, tree = await at.call("GET", f"/api/conversations/{chat}?branches=true")
    assert [(m["content"], m["active"]) for m in tree["messages"]] == [
        ("first words", False), ("first words", False), ("first words", False),
        ("other words", True), ("other words", True),
    ]  # fmt: skip
    status, chosen = await at.call("POST", f"{at_message}/{answered['id']}/choose")
    assert (status, [m["id"] for m in chosen["messages"]]) == (200, [said["id"], answered["id"]])
    status, answer = await at.call("POST", f"{at_message}/{answered['id']}/edit", {"message": "x"})
    assert (status, answer["field"]) == (400, "message_id")


async def test_images_are_for_models_that_see(at: ServiceHarness) -> None:
    image = {"media_type": "image/png", "data": base64.b64encode(b"\x89PNG data").decode()}
    status, answer = await say(at, await begin(at), "look", images=[image])
    assert (status, answer["field"]) == (400, "images")
    assert "mmproj" in answer["error"]
    status, answer = await say(at, await begin(at), "look", images=[{**image, "data": "%"}])
    assert (status, answer["field"]) == (400, "images[0].data")


async def test_a_model_that_cannot_chat_is_refused(at: ServiceHarness) -> None:
    body = {"conversation_id": await begin(at), "message": "x", "model": "embed.gguf"}
    status, answer = await at.call("POST", "/api/chat", body)
    assert (status, answer["field"]) == (400, "model")


# --- files, search, usage, feed ---------------------------------------------------------------------------------------


async def test_an_export_can_be_read_and_imported(at: ServiceHarness) -> None:
    chat = await begin(at, "Of words")
    await say(at, chat, "some words")
    async with at.http.get(f"{at.url}/api/conversations/{chat}/export?format=markdown") as response:
        page = await response.text()
        assert response.headers["content-disposition"] == f'attachment; filename="conversation-{chat}.md"'
    assert page.startswith("# Of words")
    _, everything = await at.call("GET", "/api/conversations/export")
    status, imported = await at.call("POST", "/api/conversations/import", everything)
    assert (status, imported["count"]) == (201, 1)
    copy = imported["conversations"][0]["id"]
    messages = [(await at.call("GET", f"/api/conversations/{c}"))[1]["messages"] for c in (chat, copy)]
    assert [[m["content"] for m in part] for part in messages] == [["some words"] * 2] * 2


async def test_search_finds_messages_and_titles_with_what_matched(at: ServiceHarness) -> None:
    chat = await begin(at, "About gardens")
    await say(at, chat, "tulips & <roses>")
    _, answer = await at.call("GET", "/api/search?q=roses")
    assert (answer["query"], answer["count"]) == ("roses", 2)
    found = answer["results"][0]
    assert (found["id"], found["title"], found["model"]) == (chat, "About gardens", "chat.gguf")
    assert found["content"] == "tulips & <roses>"
    assert found["snippet"] == "tulips &amp; &lt;<mark>roses</mark>&gt;"
    assert {result["role"] for result in answer["results"]} == {"user", "assistant"}
    _, answer = await at.call("GET", "/api/search?q=gard&typing=false")
    assert answer["count"] == 0
    _, answer = await at.call("GET", "/api/search?q=gard&sort=newest&client=page")
    [found] = answer["results"]
    assert (found["role"], found["content"], found["snippet"]) == (None, "", "About <mark>gardens</mark>")
    assert (await at.call("GET", "/api/search?q=%22&limit=5"))[1] == {"results": [], "query": '"', "count": 0}


async def test_a_search_that_nobody_waits_for_is_broken_off(
    at: ServiceHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, ended = asyncio.Event(), asyncio.Event()

    async def endless(*_: object) -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    monkeypatch.setattr(Database, "search", endless)
    asking = asyncio.create_task(at.call("GET", "/api/search?q=x"))
    await entered.wait()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    async with asyncio.timeout(30):
        await ended.wait()


async def test_an_imported_picture_can_be_seen_and_is_nothing_but_a_picture(at: ServiceHarness) -> None:
    url = "data:image/png;base64," + base64.b64encode(PICTURE).decode()
    extra = [{"type": "IMAGE", "name": "a.png", "base64Url": url}]
    message = {"id": "1", "role": "user", "content": "Look", "extra": extra}
    _, imported = await at.call("POST", "/api/conversations/import", {"messages": [message]})
    _, shown = await at.call("GET", f"/api/conversations/{imported['conversations'][0]['id']}")
    [attachment] = shown["messages"][0]["attachments"]
    assert (attachment["name"], attachment["media_type"], attachment["size"]) == ("a.png", "image/png", len(PICTURE))
    async with at.http.get(at.url + attachment["url"]) as response:
        assert (response.status, response.content_type, await response.read()) == (200, "image/png", PICTURE)
        assert response.headers["x-content-type-options"] == "nosniff"
    status, answer = await at.call("GET", "/api/attachments/99")
    assert (status, answer["resource"]) == (404, "attachment")


async def test_usage_is_counted_by_model_and_by_day(at: ServiceHarness) -> None:
    await say(at, await begin(at), "three small words")
    await say(at, await begin(at), "fail")
    at.context.in_flight.record()
    await at.context.store.flush()
    _, usage = await at.call("GET", "/api/stats?days=2")
    total = usage["total"]
    assert (usage["days"], total["requests"], total["errors"], total["completion_tokens"]) == (2, 2, 1, 3)
    assert (total["prompt_tokens"], total["tokens_per_second"]) == (1, 50.0)
    assert [(m["model"], m["requests"]) for m in usage["by_model"]] == [("chat", 2)]
    assert [day["requests"] for day in usage["by_day"]] == [2]


async def test_two_pages_see_the_same_tokens(at: ServiceHarness, tmp_path: Path) -> None:
    chat, gate = await begin(at, None), tmp_path / "gate"
    async with client(at, "/ui") as early, client(at, "/ui") as late:
        assert (await early.ask("join", {"topic": f"chat:{chat}"}))["ok"]
        assert (await early.until("snapshot"))["data"] == {"answer": None}
        assert (await early.ask("join", {"topic": "chats"}))["ok"]
        sent = {"operation": "chats.send", "input": {"id": chat, "message": f"wait {gate}", "model": "chat"}}
        begun = (await early.ask("call", sent))["data"]
        await early.until("delta", lambda delta: any(item["kind"] == "grow" for item in delta["items"]))
        assert (await late.ask("join", {"topic": f"chat:{chat}"}))["ok"]
        snapshot = (await late.until("snapshot"))["data"]["answer"]
        assert (snapshot["id"], snapshot["content"], snapshot["status"]) == (
            begun["answer"]["id"],
            "wait",
            "generating",
        )
        gate.touch()
        for page in (early, late):
            await page.until("delta", lambda delta: any(is_end(item, f"wait {gate}") for item in delta["items"]))
            grown = [i for delta in page.all("delta") for i in delta["items"] if i["kind"] == "grow"]
            assert grown[-1] == {
                "kind": "grow", "id": begun["answer"]["id"], "content": f" {gate}", "reasoning": "",
                "content_at": 4, "reasoning_at": 0,
            }  # fmt: skip
        titled = [i for delta in early.all("delta") for i in delta["items"] if i["kind"] == "upsert"]
        assert titled[-1]["conversation"]["title"].startswith("wait")


def is_end(item: Any, content: str) -> bool:
    return bool(
        item["kind"] == "message" and item["message"]["status"] == "complete" and item["message"]["content"] == content
        and item["message"]["role"] == "assistant"
    )  # fmt: skip
