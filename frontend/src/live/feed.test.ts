import { describe, expect, it } from "vitest";
import type { Delta, Snapshot, RequestRecord } from "./protocol.gen";
import { Feed, type Reducer } from "./feed.svelte";

const ids: Reducer<"requests", string[]> = {
  topic: "requests",
  fromSnapshot: (data) => data.records.map((r) => r.id),
  apply: (state, items) => [...state, ...items.map((r) => r.id)],
};
const record = (id: string): RequestRecord => ({ id }) as RequestRecord;
const snapshot = (seq: number, ...names: string[]): Snapshot<"requests"> => ({
  topic: "requests",
  seq,
  data: { records: names.map(record) },
});
const delta = (seq: number, dropped: number, ...names: string[]): Delta<"requests"> => ({
  topic: "requests",
  seq,
  dropped,
  items: names.map(record),
});
const frame = (): Promise<number> => new Promise(requestAnimationFrame);

describe("a feed", () => {
  it("is empty, not wrong, until its snapshot", async () => {
    const feed = new Feed(ids);
    feed.onDelta(delta(1, 0, "a"));
    await frame();
    expect(feed.data).toBeNull();
    expect(feed.since).toBeUndefined();
  });

  it("shows several messages of one frame at once", async () => {
    const feed = new Feed(ids);
    feed.onSnapshot(snapshot(5, "a"));
    feed.onDelta(delta(6, 0, "b"));
    feed.onDelta(delta(7, 0, "c"));
    expect(feed.data).toBeNull();
    await frame();
    expect(feed.data).toEqual(["a", "b", "c"]);
    expect(feed.since).toBe(7);
  });

  it("ignores what it already has", async () => {
    const feed = new Feed(ids);
    feed.onSnapshot(snapshot(5, "a"));
    feed.onDelta(delta(5, 0, "a"));
    await frame();
    expect(feed.data).toEqual(["a"]);
  });

  it("takes a snapshot whatever its number, as the server may have restarted", async () => {
    const feed = new Feed(ids);
    feed.onSnapshot(snapshot(900, "old"));
    feed.onSnapshot(snapshot(2, "new"));
    feed.onDelta(delta(3, 0, "newer"));
    await frame();
    expect(feed.data).toEqual(["new", "newer"]);
  });

  it("resumes after a lost connection", async () => {
    const feed = new Feed(ids);
    feed.onSnapshot(snapshot(1, "a"));
    feed.onDelta(delta(9, 7, "z"));
    await frame();
    expect(feed.data).toEqual(["a", "z"]);
    expect(feed.since).toBe(9);
  });
});
