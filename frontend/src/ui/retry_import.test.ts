import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { retryImport } from "./retry_import";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

test("returns code that loads at once", async () => {
  await expect(retryImport(() => Promise.resolve("code"))).resolves.toBe("code");
});

test("retries with growing pauses", async () => {
  const asked: number[] = [];
  const start = Date.now();
  const loaded = retryImport(() => {
    asked.push(Date.now() - start);
    return asked.length < 8 ? Promise.reject(new Error("unreachable")) : Promise.resolve("code");
  });
  await vi.runAllTimersAsync();
  await expect(loaded).resolves.toBe("code");
  expect(asked).toEqual([0, 1000, 3000, 7000, 15_000, 31_000, 61_000, 91_000]);
});
