/** Advice about a model that failed to load, found in the engine's error and log. */

import { text } from "./text";

const KNOWN: readonly (readonly [RegExp, string])[] = [
  [/out of memory|failed to allocate|alloc.*fail|bad_alloc|cannot allocate|killed|signal 9|SIGKILL/i, text.advice.memory],
  [/unknown (model )?architecture|unsupported (model )?architecture|unknown pre-tokenizer/i, text.advice.architecture],
  [/no such file|failed to open|invalid magic|corrupt|truncated|not within (the )?file|tensor.*out of bounds/i, text.advice.file],
  [/timed? ?out|deadline|took longer|within \d/i, text.advice.timeout],
];

export function advice(error: string, log_tail: readonly string[]): string {
  const words = [error, ...log_tail].join("\n");
  return KNOWN.find(([pattern]) => pattern.test(words))?.[1] ?? text.advice.other;
}
