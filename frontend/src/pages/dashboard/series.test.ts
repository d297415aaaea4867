import { describe, expect, it } from "vitest";
import type { GpuSample, Sample } from "../../live/protocol.gen";
import { minutes, range, series } from "./series";

const GIB = 1024 ** 3;
const gpu = (more: Partial<GpuSample> = {}): GpuSample => ({
  index: 0,
  name: "Card",
  vendor: "amd",
  usage_percent: null,
  memory_used_bytes: null,
  memory_total_bytes: null,
  temperature_c: null,
  power_w: null,
  ...more,
});
const sample = (timestamp_ms: number, more: Partial<Sample> = {}): Sample =>
  ({
    timestamp_ms,
    cpu_percent: 25,
    memory_used_bytes: 8 * GIB,
    memory_total_bytes: 16 * GIB,
    swap_used_bytes: 0,
    swap_total_bytes: 0,
    disk_used_bytes: 100 * GIB,
    disk_total_bytes: 400 * GIB,
    gpus: [],
    ...more,
  }) as Sample;
const keys = (samples: Sample[]): string[] => series(samples).map((s) => s.key);

describe("the machine's series", () => {
  it("are none before the first sample", () => expect(series([])).toEqual([]));

  it("have no GPU where there is none", () => expect(keys([sample(0)])).toEqual(["cpu", "memory", "disk"]));

  it("show only what a GPU tells", () => {
    expect(keys([sample(0, { gpus: [gpu({ memory_used_bytes: GIB, memory_total_bytes: 2 * GIB })] })])).toContain("gpu-0-memory");
    expect(keys([sample(0, { gpus: [gpu({ usage_percent: 0 })] })])).toEqual(["cpu", "memory", "gpu-0", "disk"]);
    expect(keys([sample(0, { gpus: [gpu()] })])).toEqual(["cpu", "memory", "disk"]);
  });

  it("draw a gap where a GPU was silent", () => {
    const found = series([sample(0), sample(1, { gpus: [gpu({ usage_percent: 60 })] })]);
    expect(found.find((s) => s.key === "gpu-0")?.points).toEqual([null, 60]);
  });

  it("mention swap only if there is some", () => {
    expect(series([sample(0)])[1]?.note).toBe("of 16.0 GiB");
    expect(series([sample(0, { swap_total_bytes: GIB, swap_used_bytes: GIB / 2 })])[1]?.note).toBe("of 16.0 GiB · swap 512 MiB");
  });

  it("fill a table with a row a minute, newest first", () => {
    const samples = [sample(0, { cpu_percent: 1 }), sample(59_000, { cpu_percent: 2 }), sample(61_000, { cpu_percent: 3 })];
    expect(minutes(samples, series(samples)).map((row) => [row.t, row.cells[0]])).toEqual([
      [61_000, 3],
      [59_000, 2],
    ]);
  });

  it("have a range, unknown if nothing is known", () => {
    expect(range([10, null, 90, 40])).toEqual({ now: "40 %", low: "10 %", high: "90 %" });
    expect(range([null])).toEqual({ now: "–", low: "–", high: "–" });
  });
});
