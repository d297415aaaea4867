import { describe, expect, it } from "vitest";
import type { Conversation, ConversationView, Message } from "../protocol.gen";
import { alternatives, applied, begun, isAnswering, path, type ChatItem, type Thread } from "./chat";

const record = (id: number, parent_id: number | null, more: Partial<Message> = {}): Message => ({
  id,
  conversation_id: 1,
  parent_id,
  role: id % 2 ? "user" : "assistant",
  content: `m${id}`,
  reasoning: null,
  model: null,
  status: "complete",
  is_active: true,
  created_at_ms: 0,
  response_ms: null,
  prompt_tokens: null,
  tokens: null,
  tokens_per_second: null,
  attachments: [],
  ...more,
});
const said = (id: number, parent_id: number | null, more: Partial<Message> = {}): Message =>
  record(id, parent_id, { content: "", model: "m", status: "generating", ...more });
const view = (...messages: Message[]): ConversationView =>
  ({ conversation: { id: 1, title: "One" }, messages }) as unknown as ConversationView;
const words = (thread: Thread): string[] => path(thread).map((message) => message.content);
const grow = (id: number, content: string, content_at: number): ChatItem => ({
  kind: "grow",
  id,
  content,
  reasoning: "",
  content_at,
  reasoning_at: 0,
});
const message = (message: Message): ChatItem => ({ kind: "message", message });

describe("a conversation", () => {
  it("is the branch that is active, of all there are", () => {
    const off = { is_active: false };
    const thread = begun(view(record(1, null), record(2, 1, off), record(4, 1), record(5, 4)), null, null);
    expect(words(thread)).toEqual(["m1", "m4", "m5"]);
    expect(alternatives(thread, path(thread)[1]!)).toEqual([2, 4]);
    expect(alternatives(thread, path(thread)[0]!)).toEqual([1]);
  });

  it("grows by a question and its answer", () => {
    const asked = applied(begun(view(), null, null), [
      message(said(1, null, { content: "Hello", status: "complete" })),
      message(said(2, 1)),
    ]);
    expect(isAnswering(asked)).toBe(true);
    const growing = applied(asked, [grow(2, "Hi", 0), grow(2, " there", 2)]);
    expect(words(growing)).toEqual(["Hello", "Hi there"]);
    const done = applied(growing, [message(said(2, 1, { content: "Hi there", status: "complete", tokens: 2 }))]);
    expect(isAnswering(done)).toBe(false);
    expect(path(done)[1]!.tokens).toBe(2);
  });

  it("goes on in mid-answer where what is stored, what was sent and what comes overlap", () => {
    const stored = view(record(1, null), record(2, 1, { content: "on", status: "generating" }));
    const thread = begun(stored, said(2, 1, { content: "one two" }), null);
    expect(words(applied(thread, [grow(2, "e two th", 2), grow(2, "ree", 10)]))).toEqual(["m1", "one two three"]);
    expect(thread.isUnclear).toBe(false);
  });

  it("counts characters as the service does", () => {
    const thread = begun(view(record(1, null)), said(2, 1, { content: "🦙🦙" }), null);
    expect(words(applied(thread, [grow(2, "🦙!", 1), grow(2, "?", 3)]))[1]).toBe("🦙🦙!?");
  });

  it("knows when it missed something", () => {
    const thread = begun(view(record(1, null)), said(2, 1, { content: "on" }), null);
    expect(applied(thread, [grow(2, "three", 5)]).isUnclear).toBe(true);
    expect(applied(thread, [grow(9, "x", 0)]).isUnclear).toBe(true);
    expect(applied(thread, [{ kind: "branches" }]).isUnclear).toBe(true);
  });

  it("never goes back from a complete answer to an unfinished one", () => {
    const thread = begun(view(record(1, null), record(2, 1)), said(2, 1, { content: "m" }), null);
    expect(words(applied(thread, [grow(2, "x", 1), message(said(2, 1))]))).toEqual(["m1", "m2"]);
  });

  it("leaves other messages alone, so that they are not drawn again", () => {
    const before = begun(view(record(1, null), record(2, 1), record(3, 2)), said(4, 3), null);
    const after = applied(before, [grow(4, "More", 0)]);
    expect(path(after).slice(0, 3).every((one, index) => one === path(before)[index])).toBe(true);
    expect(after.children).toBe(before.children);
  });

  it("keeps why there is no answer until something else is said", () => {
    const failure: ChatItem = { kind: "failure", code: "NOT_FOUND", message: "gone" };
    const thread = begun(view(record(1, null)), said(2, 1), null);
    const failed = applied(thread, [{ kind: "remove_message", id: 2 }, failure]);
    expect([words(failed), failed.isUnclear, failed.failure?.message]).toEqual([["m1"], true, "gone"]);
    const again = begun(view(record(1, null)), null, failed);
    expect([again.isUnclear, again.failure?.code]).toEqual([false, "NOT_FOUND"]);
    expect(applied(again, [message(said(4, 1))]).failure).toBeNull();
  });

  it("is renamed and deleted elsewhere", () => {
    const thread = begun(view(), null, null);
    const conversation = { id: 1, title: "Two", is_pinned: true } as Conversation;
    const renamed = applied(thread, [{ kind: "upsert", conversation }]);
    expect([renamed.conversation.title, renamed.conversation.is_pinned]).toEqual(["Two", true]);
    expect(applied(renamed, [{ kind: "remove", id: 1 }]).isGone).toBe(true);
  });
});
