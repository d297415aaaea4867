import { describe, expect, it } from "vitest";
import { text } from "./text";
import { advice } from "./advice";

describe("advice", () => {
  it.each([
    ["the process was killed by signal 9", text.advice.memory],
    ["ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 99", text.advice.memory],
    ["error loading model architecture: unknown model architecture: 'zeta'", text.advice.architecture],
    ["gguf_init_from_file: invalid magic characters", text.advice.file],
    ["it did not become ready within 600 s", text.advice.timeout],
    ["exit status 1", text.advice.other],
  ])("for “%s”", (error, expected) => expect(advice(error, [])).toBe(expected));

  it("also reads the log", () => {
    expect(advice("exit status 1", ["loading", "std::bad_alloc"])).toBe(text.advice.memory);
  });
});
