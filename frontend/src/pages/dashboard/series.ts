/** Series of the machine's tiles, made from samples. */

import { bytes, percent } from "../../domain/format";
import type { Sample } from "../../live/protocol.gen";
import { text } from "./text";

export interface Series {
  key: string;
  name: string;
  /** Large text in the tile; `note` is the small text below it. */
  value: string;
  note: string;
  /** Percent at each sample; null draws a gap. */
  points: (number | null)[];
}

const share = (used: number | null, total: number | null): number | null =>
  used === null || !total ? null : (100 * used) / total;

/** CPU, memory and disk always; each GPU as far as its driver reports. Absent hardware has no series. */
export function series(samples: readonly Sample[]): Series[] {
  const last = samples.at(-1);
  if (!last) return [];
  return [
    { key: "cpu", name: text.machine.cpu, value: percent(last.cpu_percent), note: "", points: samples.map((s) => s.cpu_percent) },
    {
      key: "memory",
      name: text.machine.memory,
      value: bytes(last.memory_used_bytes),
      note: [text.machine.of(bytes(last.memory_total_bytes)), last.swap_total_bytes ? text.machine.swap(bytes(last.swap_used_bytes)) : ""]
        .filter(Boolean)
        .join(" · "),
      points: samples.map((s) => share(s.memory_used_bytes, s.memory_total_bytes)),
    },
    ...last.gpus.flatMap((gpu) => gpuSeries(samples, gpu.index)),
    {
      key: "disk",
      name: text.machine.disk,
      value: bytes(last.disk_used_bytes),
      note: text.machine.of(bytes(last.disk_total_bytes)),
      points: samples.map((s) => share(s.disk_used_bytes, s.disk_total_bytes)),
    },
  ];
}

function gpuSeries(samples: readonly Sample[], index: number): Series[] {
  const at = (sample: Sample) => sample.gpus.find((gpu) => gpu.index === index);
  const gpu = at(samples.at(-1)!)!;
  const heat = gpu.temperature_c === null ? [] : [`${gpu.temperature_c.toFixed(0)} °C`];
  const power = gpu.power_w === null ? [] : [`${gpu.power_w.toFixed(0)} W`];
  const found: Series[] = [];
  if (gpu.usage_percent !== null) {
    found.push({
      key: `gpu-${index}`,
      name: `${text.machine.gpu} ${index}`,
      value: percent(gpu.usage_percent),
      note: [gpu.name, ...heat, ...power].join(" · "),
      points: samples.map((s) => at(s)?.usage_percent ?? null),
    });
  }
  if (gpu.memory_used_bytes !== null) {
    found.push({
      key: `gpu-${index}-memory`,
      name: `${text.machine.gpuMemory} ${index}`,
      value: bytes(gpu.memory_used_bytes),
      note: gpu.memory_total_bytes === null ? gpu.name : text.machine.of(bytes(gpu.memory_total_bytes)),
      points: samples.map((s) => share(at(s)?.memory_used_bytes ?? null, at(s)?.memory_total_bytes ?? null)),
    });
  }
  return found;
}

export interface Row {
  t: number;
  cells: (number | null)[];
}

/** One row a minute, newest first: the last sample of each. */
export function minutes(samples: readonly Sample[], all: readonly Series[]): Row[] {
  const last = new Map<number, number>();
  samples.forEach((sample, index) => last.set(Math.floor(sample.timestamp_ms / 60_000), index));
  return [...last.values()]
    .reverse()
    .map((index) => ({ t: samples[index]!.timestamp_ms, cells: all.map((one) => one.points[index] ?? null) }));
}

export function range(points: readonly (number | null)[]): { now: string; low: string; high: string } {
  const known = points.filter((point) => point !== null);
  const edge = (pick: (...values: number[]) => number) => percent(known.length ? pick(...known) : null);
  return { now: percent(points.at(-1)), low: edge(Math.min), high: edge(Math.max) };
}
