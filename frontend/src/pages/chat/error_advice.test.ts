import { describe, expect, it } from "vitest";
import { text } from "../../app/strings";
import { hint } from "./error_advice";

describe("a missing answer", () => {
  it.each([
    ["NOT_FOUND", "no such model", text.chatErrors.notFound],
    ["RATE_LIMITED", "too many", text.chatErrors.overloaded],
    ["SERVICE_UNAVAILABLE", "stopped", text.chatErrors.unavailable],
    ["LLAMACPP_ERROR", "stopped", text.chatErrors.unavailable],
    ["CONNECTION_FAILED", "nobody", text.chatErrors.unreachableHint],
    ["VALIDATION_ERROR", "the request exceeds the available context size", text.chatErrors.tooLarge],
    ["INTERNAL_ERROR", "odd", text.chatErrors.other],
  ])("of %s comes with advice", (code, message, expected) => {
    expect(hint({ code, message })).toBe(expected);
  });
});
