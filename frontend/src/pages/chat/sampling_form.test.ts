import { describe, expect, it } from "vitest";
import { DEFAULT_SAMPLING, DEFAULT_SETTINGS, isDefault, parseForm, toForm } from "./sampling_form";

describe("sampling options as a form", () => {
  it("survive the way into the form and back", () => {
    const sampling = { ...DEFAULT_SAMPLING, temperature: 0.2, seed: 7, stop: ["END", " ."] };
    expect(parseForm(toForm(sampling))).toEqual({ sampling, problems: {} });
  });

  it("keep the default of an empty field", () => {
    expect(parseForm(toForm(DEFAULT_SAMPLING)).sampling).toEqual(DEFAULT_SAMPLING);
    expect(isDefault(DEFAULT_SETTINGS)).toBe(true);
    expect(isDefault({ ...DEFAULT_SETTINGS, system_prompt: "" })).toBe(false);
  });

  it("say which field is no number", () => {
    const form = { ...toForm(DEFAULT_SAMPLING), temperature: "0,5", top_k: "1.5", seed: "x" };
    const { sampling, problems } = parseForm(form);
    expect(sampling.temperature).toBe(0.5);
    expect(problems).toEqual({ top_k: "must be a whole number", seed: "must be a number" });
  });
});
