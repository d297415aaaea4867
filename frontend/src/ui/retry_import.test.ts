import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { lazily } from "./retry_import";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

test("what is there is given at once", async () => {
  await expect(lazily(() => Promise.resolve("code"))).resolves.toBe("code");
});

test("what cannot be loaded is asked for again, more and more slowly", async () => {
  const asked: number[] = [];
  const start = Date.now();
  const loaded = lazily(() => {
    asked.push(Date.now() - start);
    return asked.length < 8 ? Promise.reject(new Error("unreachable")) : Promise.resolve("code");
  });
  await vi.runAllTimersAsync();
  await expect(loaded).resolves.toBe("code");
  expect(asked).toEqual([0, 1000, 3000, 7000, 15_000, 31_000, 61_000, 91_000]);
});
