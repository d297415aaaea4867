import { describe, expect, it } from "vitest";
import { text } from "./text";
import { adviceFor } from "./error_advice";

describe("an answer that failed", () => {
  it.each([
    ["NOT_FOUND", "no such model", text.errors.notFound],
    ["RATE_LIMITED", "too many", text.errors.overloaded],
    ["SERVICE_UNAVAILABLE", "stopped", text.errors.unavailable],
    ["LLAMACPP_ERROR", "stopped", text.errors.unavailable],
    ["CONNECTION_FAILED", "nobody", text.errors.unreachableHint],
    ["VALIDATION_ERROR", "the request exceeds the available context size", text.errors.tooLarge],
    ["INTERNAL_ERROR", "odd", text.errors.other],
  ])("of %s comes with advice", (code, message, expected) => {
    expect(adviceFor({ code, message })).toBe(expected);
  });
});
