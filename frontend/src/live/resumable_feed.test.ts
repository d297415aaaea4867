import { describe, expect, it } from "vitest";
import type { Conversation, Delta, Snapshot } from "./protocol.gen";
import type { Connection } from "./connection.svelte";
import { ResumableFeed, type ResumableReducer } from "./resumable_feed.svelte";

type Loaded = { promise: Promise<string[] | null>; done: (names: string[] | null) => void };

function loading(): Loaded {
  let done!: Loaded["done"];
  const promise = new Promise<string[] | null>((resolve) => (done = resolve));
  return { promise, done };
}

function names(...loads: Loaded[]): ResumableReducer<"chats", string[], string[]> {
  return {
    topic: "chats",
    load: () => loads.shift()!.promise,
    start: (stored, { answering }) => [...stored, ...answering.map(String)],
    apply: (state, items) => [...state, ...items.map((item) => (item.kind === "remove" ? "?" : "+"))],
    needsReload: (state) => state.includes("?"),
  };
}
const snapshot = (...answering: number[]): Snapshot<"chats"> => ({ topic: "chats", seq: 1, data: { answering } });
const upsert = { kind: "upsert" as const, conversation: {} as Conversation as never };
const delta = (...items: Delta<"chats">["items"]): Delta<"chats"> => ({ topic: "chats", seq: 2, items, dropped: 0 });
const settled = (): Promise<void> => new Promise((resolve) => setTimeout(resolve));

describe("a resumable feed", () => {
  it("applies the items that arrived during the load", async () => {
    const load = loading();
    const feed = new ResumableFeed(names(load));
    feed.onSnapshot(snapshot(7));
    feed.onDelta(delta(upsert));
    expect(feed.latest).toBeNull();
    load.done(["a"]);
    await settled();
    expect(feed.latest).toEqual(["a", "7", "+"]);
  });

  it("keeps the newer of two loads, whichever ends first", async () => {
    const [first, second] = [loading(), loading()];
    const feed = new ResumableFeed(names(first, second));
    feed.onSnapshot(snapshot(1));
    feed.onSnapshot(snapshot(2));
    second.done(["new"]);
    await settled();
    first.done(["old"]);
    await settled();
    expect(feed.latest).toEqual(["new", "2"]);
  });

  it("keeps its state when a load fails, and applies later items", async () => {
    const [first, second] = [loading(), loading()];
    const feed = new ResumableFeed(names(first, second));
    feed.onSnapshot(snapshot());
    first.done(["a"]);
    await settled();
    feed.onSnapshot(snapshot());
    second.done(null);
    await settled();
    feed.onDelta(delta(upsert));
    expect(feed.latest).toEqual(["a", "+"]);
  });

  it("loads once more when the state needs it", async () => {
    const load = loading();
    const feed = new ResumableFeed(names(load));
    let refreshed = 0;
    const connection = { join: () => () => {}, refresh: () => (refreshed += 1) } as unknown as Connection;
    feed.watch(connection);
    feed.onSnapshot(snapshot());
    load.done([]);
    await settled();
    feed.onDelta(delta({ kind: "remove", id: 1 }));
    feed.onDelta(delta(upsert));
    expect(refreshed).toBe(1);
  });
});
