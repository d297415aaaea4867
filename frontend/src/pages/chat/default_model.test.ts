import { describe, expect, it } from "vitest";
import type { ModelSummary } from "../../live/protocol.gen";
import { defaultModel } from "./default_model";

const model = (slug: string, more: Partial<ModelSummary> = {}): ModelSummary =>
  ({ slug, status: "unloaded", is_favorite: false, last_used_at_ms: null, ...more }) as ModelSummary;

describe("the model that answers", () => {
  it.each([
    ["the one picked", [model("a", { status: "ready" }), model("b")], "b", "b"],
    ["one that is ready", [model("a", { last_used_at_ms: 9 }), model("b", { status: "ready" })], "gone", "b"],
    ["a favourite", [model("a", { last_used_at_ms: 9 }), model("b", { is_favorite: true })], null, "b"],
    ["the last used", [model("a"), model("b", { last_used_at_ms: 9 })], null, "b"],
    ["the first", [model("a"), model("b")], null, "a"],
    ["none of none", [], "a", undefined],
  ])("is %s", (_, models, picked, slug) => expect(defaultModel(models, picked)?.slug).toBe(slug));
});
