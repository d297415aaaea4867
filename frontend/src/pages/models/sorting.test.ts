import { describe, expect, it } from "vitest";
import type { ModelSummary } from "../../live/protocol.gen";
import { filterAndSort, parseSort, toggleSort, formatSort } from "./sorting";

const model = (name: string, more: Partial<ModelSummary> = {}): ModelSummary =>
  ({
    name,
    slug: name,
    architecture: "llama",
    kind: "chat",
    status: "unloaded",
    quantization: "Q4_K_M",
    parameter_count: null,
    size_bytes: 1,
    ...more,
  }) as ModelSummary;
const all = [
  model("qwen3-14b", { size_bytes: 14, parameter_count: 14e9, architecture: "qwen3" }),
  model("gemma", { size_bytes: 4, status: "ready" }),
  model("qwen3-8b", { size_bytes: 8, parameter_count: 8e9, architecture: "qwen3" }),
];
const names = (query: string, order = ""): string[] => filterAndSort(all, query, parseSort(order)).map((m) => m.name);

describe("the list of models", () => {
  it("is by name as people count", () => expect(names("")).toEqual(["gemma", "qwen3-8b", "qwen3-14b"]));

  it("finds every word, in any order and case, in name, kind and state", () => {
    expect(names("8B QWEN")).toEqual(["qwen3-8b"]);
    expect(names("ready chat")).toEqual(["gemma"]);
    expect(names("nothing")).toEqual([]);
  });

  it("sorts both ways with unknown values last", () => {
    expect(names("", "parameters")).toEqual(["qwen3-8b", "qwen3-14b", "gemma"]);
    expect(names("", "-parameters")).toEqual(["qwen3-14b", "qwen3-8b", "gemma"]);
  });

  it("puts loaded models first by state", () => expect(names("", "state")[0]).toBe("gemma"));

  it("does not reorder what it was given", () => {
    filterAndSort(all, "", parseSort("-size"));
    expect(all[0]?.name).toBe("qwen3-14b");
  });
});

describe("the order in the address", () => {
  it("survives the round trip, and nonsense is the default", () => {
    for (const written of ["size", "-size", "-name", ""]) expect(formatSort(parseSort(written))).toBe(written);
    expect(parseSort("-colour")).toEqual({ column: "name", descending: false });
    expect(parseSort(null)).toEqual({ column: "name", descending: false });
  });

  it("turns around when the same column is pressed again", () => {
    const once = toggleSort(parseSort(""), "size");
    expect(once).toEqual({ column: "size", descending: false });
    expect(toggleSort(once, "size").descending).toBe(true);
    expect(toggleSort(once, "name")).toEqual({ column: "name", descending: false });
  });
});
