import { describe, expect, it } from "vitest";
import { DEFAULT_RULES, DEFAULT_SAMPLING } from "./conversations.svelte";
import { filled, isDefault, read } from "./sampling_form";

describe("sampling options as a form", () => {
  it("come back as they were", () => {
    const sampling = { ...DEFAULT_SAMPLING, temperature: 0.2, seed: 7, stop: ["END", " ."] };
    expect(read(filled(sampling))).toEqual({ sampling, problems: {} });
  });

  it("leave to others what is empty", () => {
    expect(read(filled(DEFAULT_SAMPLING)).sampling).toEqual(DEFAULT_SAMPLING);
    expect(isDefault(DEFAULT_RULES)).toBe(true);
    expect(isDefault({ ...DEFAULT_RULES, system_prompt: "" })).toBe(false);
  });

  it("say which field is no number", () => {
    const form = { ...filled(DEFAULT_SAMPLING), temperature: "0,5", top_k: "1.5", seed: "x" };
    const { sampling, problems } = read(form);
    expect(sampling.temperature).toBe(0.5);
    expect(problems).toEqual({ top_k: "must be a whole number", seed: "must be a number" });
  });
});
