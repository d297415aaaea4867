import { expect, test } from "vitest";
import type { MemoryReport, MemoryUse } from "../../live/protocol.gen";
import { memoryLine, remedies } from "./memory";

const GIB = 1024 ** 3;
const use = (host_bytes: number, gpu_bytes = 0): MemoryUse => ({ host_bytes, gpu_bytes, gpus: [] });
const report = {
  use: use(2 * GIB),
  fits: "yes",
  alternatives: [],
  measured_host_bytes: null,
  measured_gpu_bytes: null,
  counted: null,
} as unknown as MemoryReport;

test("a model that is not loaded says what it needs and whether it fits", () => {
  expect(memoryLine(report)).toBe("Needs 2.00 GiB: fits");
  expect(memoryLine({ ...report, use: use(GIB, 4 * GIB), fits: "no" })).toBe(
    "Needs 1.00 GiB and 4.00 GiB on the GPU: does not fit",
  );
});

test("a loaded model shows what was measured beside what was expected", () => {
  expect(memoryLine({ ...report, measured_host_bytes: 3 * GIB })).toBe("Takes 3.00 GiB, expected 2.00 GiB");
  expect(memoryLine({ ...report, measured_host_bytes: GIB, counted: use(2 * GIB) })).toBe(
    "Takes 2.00 GiB, expected 2.00 GiB",
  );
});

test("settings that would fit are shown as one types them", () => {
  const alternatives = [{ "cache-type-k": "q8_0", "cache-type-v": "q8_0" }, { "ctx-size": 4096 }];
  expect(remedies({ ...report, alternatives })).toEqual(["--cache-type-k q8_0 --cache-type-v q8_0", "--ctx-size 4096"]);
});
