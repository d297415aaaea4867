import { describe, expect, it } from "vitest";
import type { Conversation, ConversationView, Message } from "../protocol.gen";
import { activeBranch, applyToThread, isAnswering, siblings, startThread, type ChatItem, type Thread } from "./chat";

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
const words = (thread: Thread): string[] => activeBranch(thread).map((message) => message.content);
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
  it("reads the active branch", () => {
    const off = { is_active: false };
    const thread = startThread(view(record(1, null), record(2, 1, off), record(4, 1), record(5, 4)), null, null);
    expect(words(thread)).toEqual(["m1", "m4", "m5"]);
    expect(siblings(thread, activeBranch(thread)[1]!)).toEqual([2, 4]);
    expect(siblings(thread, activeBranch(thread)[0]!)).toEqual([1]);
  });

  it("grows by a question and its answer", () => {
    const asked = applyToThread(startThread(view(), null, null), [
      message(said(1, null, { content: "Hello", status: "complete" })),
      message(said(2, 1)),
    ]);
    expect(isAnswering(asked)).toBe(true);
    const growing = applyToThread(asked, [grow(2, "Hi", 0), grow(2, " there", 2)]);
    expect(words(growing)).toEqual(["Hello", "Hi there"]);
    const done = applyToThread(growing, [message(said(2, 1, { content: "Hi there", status: "complete", tokens: 2 }))]);
    expect(isAnswering(done)).toBe(false);
    expect(activeBranch(done)[1]!.tokens).toBe(2);
  });

  it("continues an answer whose stored text, snapshot and deltas overlap", () => {
    const stored = view(record(1, null), record(2, 1, { content: "on", status: "generating" }));
    const thread = startThread(stored, said(2, 1, { content: "one two" }), null);
    expect(words(applyToThread(thread, [grow(2, "e two th", 2), grow(2, "ree", 10)]))).toEqual(["m1", "one two three"]);
    expect(thread.needsReload).toBe(false);
  });

  it("counts characters as the service does", () => {
    const thread = startThread(view(record(1, null)), said(2, 1, { content: "🦙🦙" }), null);
    expect(words(applyToThread(thread, [grow(2, "🦙!", 1), grow(2, "?", 3)]))[1]).toBe("🦙🦙!?");
  });

  it("asks for a reload after a gap", () => {
    const thread = startThread(view(record(1, null)), said(2, 1, { content: "on" }), null);
    expect(applyToThread(thread, [grow(2, "three", 5)]).needsReload).toBe(true);
    expect(applyToThread(thread, [grow(9, "x", 0)]).needsReload).toBe(true);
    expect(applyToThread(thread, [{ kind: "branches" }]).needsReload).toBe(true);
  });

  it("never goes back from a complete answer to an unfinished one", () => {
    const thread = startThread(view(record(1, null), record(2, 1)), said(2, 1, { content: "m" }), null);
    expect(words(applyToThread(thread, [grow(2, "x", 1), message(said(2, 1))]))).toEqual(["m1", "m2"]);
  });

  it("keeps the objects of other messages, so that they are not rendered again", () => {
    const before = startThread(view(record(1, null), record(2, 1), record(3, 2)), said(4, 3), null);
    const after = applyToThread(before, [grow(4, "More", 0)]);
    expect(activeBranch(after).slice(0, 3).every((one, index) => one === activeBranch(before)[index])).toBe(true);
    expect(after.children).toBe(before.children);
  });

  it("keeps the error until the next message", () => {
    const failure: ChatItem = { kind: "failure", code: "NOT_FOUND", message: "gone" };
    const thread = startThread(view(record(1, null)), said(2, 1), null);
    const failed = applyToThread(thread, [{ kind: "remove_message", id: 2 }, failure]);
    expect([words(failed), failed.needsReload, failed.error?.message]).toEqual([["m1"], true, "gone"]);
    const again = startThread(view(record(1, null)), null, failed);
    expect([again.needsReload, again.error?.code]).toEqual([false, "NOT_FOUND"]);
    expect(applyToThread(again, [message(said(4, 1))]).error).toBeNull();
  });

  it("follows a rename and a deletion in another tab", () => {
    const thread = startThread(view(), null, null);
    const conversation = { id: 1, title: "Two", is_pinned: true } as Conversation;
    const renamed = applyToThread(thread, [{ kind: "upsert", conversation }]);
    expect([renamed.conversation.title, renamed.conversation.is_pinned]).toEqual(["Two", true]);
    expect(applyToThread(renamed, [{ kind: "remove", id: 1 }]).isDeleted).toBe(true);
  });
});
