import { describe, expect, it } from "vitest";
import type { UiModel } from "../../live/protocol";
import { preferred } from "./default_model";

const model = (slug: string, more: Partial<UiModel> = {}): UiModel =>
  ({ slug, status: "unloaded", isFavorite: false, lastUsedAtMs: null, ...more }) as UiModel;

describe("the model to talk to", () => {
  it.each([
    ["the one picked", [model("a", { status: "ready" }), model("b")], "b", "b"],
    ["one that is ready", [model("a", { lastUsedAtMs: 9 }), model("b", { status: "ready" })], "gone", "b"],
    ["a favourite", [model("a", { lastUsedAtMs: 9 }), model("b", { isFavorite: true })], null, "b"],
    ["the last used", [model("a"), model("b", { lastUsedAtMs: 9 })], null, "b"],
    ["the first", [model("a"), model("b")], null, "a"],
    ["none of none", [], "a", undefined],
  ])("is %s", (_, models, picked, slug) => expect(preferred(models, picked)?.slug).toBe(slug));
});
