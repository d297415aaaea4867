import { expect, test } from "vitest";
import type { MemoryReport } from "../../live/protocol";
import { memoryLine, remedies } from "./memory";

const GIB = 1024 ** 3;
const report: MemoryReport = {
  use: { host_bytes: 2 * GIB, gpu_bytes: 0 },
  fits: "yes",
  alternatives: [],
  measured_host_bytes: null,
  measured_gpu_bytes: null,
  counted: null,
};

test("a model that is not loaded says what it needs and whether it fits", () => {
  expect(memoryLine(report)).toBe("Needs 2.00 GiB: fits");
  expect(memoryLine({ ...report, use: { host_bytes: GIB, gpu_bytes: 4 * GIB }, fits: "no" })).toBe(
    "Needs 1.00 GiB and 4.00 GiB on the GPU: does not fit",
  );
});

test("a loaded model shows what was measured beside what was expected", () => {
  expect(memoryLine({ ...report, measured_host_bytes: 3 * GIB })).toBe("Takes 3.00 GiB, expected 2.00 GiB");
  expect(memoryLine({ ...report, measured_host_bytes: GIB, counted: { host_bytes: 2 * GIB, gpu_bytes: 0 } })).toBe(
    "Takes 2.00 GiB, expected 2.00 GiB",
  );
});

test("settings that would fit are shown as one types them", () => {
  const alternatives = [{ "cache-type-k": "q8_0", "cache-type-v": "q8_0" }, { "ctx-size": 4096 }];
  expect(remedies({ ...report, alternatives })).toEqual(["--cache-type-k q8_0 --cache-type-v q8_0", "--ctx-size 4096"]);
});
