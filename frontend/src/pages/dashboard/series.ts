/** What the machine's tiles show, from samples. */

import { bytes, percent } from "../../domain/format";
import type { UiSample } from "../../live/protocol";
import { text } from "../../app/strings";

export interface Series {
  key: string;
  name: string;
  /** In the tile, large and small. */
  value: string;
  note: string;
  /** Percent at each sample; null draws a gap. */
  points: (number | null)[];
}

const share = (used: number | null, total: number | null): number | null =>
  used === null || !total ? null : (100 * used) / total;

/** CPU, memory and disk always; each GPU that says something. Absent hardware has no series. */
export function series(samples: readonly UiSample[]): Series[] {
  const last = samples.at(-1);
  if (!last) return [];
  return [
    { key: "cpu", name: text.host.cpu, value: percent(last.cpu), note: "", points: samples.map((s) => s.cpu) },
    {
      key: "memory",
      name: text.host.memory,
      value: bytes(last.memoryUsed),
      note: [text.host.of(bytes(last.memoryTotal)), last.swapTotal ? text.host.swap(bytes(last.swapUsed)) : ""]
        .filter(Boolean)
        .join(" · "),
      points: samples.map((s) => share(s.memoryUsed, s.memoryTotal)),
    },
    ...last.gpus.flatMap((gpu) => gpuSeries(samples, gpu.index)),
    {
      key: "disk",
      name: text.host.disk,
      value: bytes(last.diskUsed),
      note: text.host.of(bytes(last.diskTotal)),
      points: samples.map((s) => share(s.diskUsed, s.diskTotal)),
    },
  ];
}

function gpuSeries(samples: readonly UiSample[], index: number): Series[] {
  const at = (sample: UiSample) => sample.gpus.find((gpu) => gpu.index === index);
  const gpu = at(samples.at(-1)!)!;
  const heat = gpu.temperature === null ? [] : [`${gpu.temperature.toFixed(0)} °C`];
  const power = gpu.power === null ? [] : [`${gpu.power.toFixed(0)} W`];
  const found: Series[] = [];
  if (gpu.usage !== null) {
    found.push({
      key: `gpu-${index}`,
      name: `${text.host.gpu} ${index}`,
      value: percent(gpu.usage),
      note: [gpu.name, ...heat, ...power].join(" · "),
      points: samples.map((s) => at(s)?.usage ?? null),
    });
  }
  if (gpu.memoryUsed !== null) {
    found.push({
      key: `gpu-${index}-memory`,
      name: `${text.host.gpuMemory} ${index}`,
      value: bytes(gpu.memoryUsed),
      note: gpu.memoryTotal === null ? gpu.name : text.host.of(bytes(gpu.memoryTotal)),
      points: samples.map((s) => share(at(s)?.memoryUsed ?? null, at(s)?.memoryTotal ?? null)),
    });
  }
  return found;
}

export interface Row {
  t: number;
  cells: (number | null)[];
}

/** One row a minute, newest first: the last sample of each. */
export function minutes(samples: readonly UiSample[], all: readonly Series[]): Row[] {
  const last = new Map<number, number>();
  samples.forEach((sample, index) => last.set(Math.floor(sample.t / 60_000), index));
  return [...last.values()]
    .reverse()
    .map((index) => ({ t: samples[index]!.t, cells: all.map((one) => one.points[index] ?? null) }));
}

export function range(points: readonly (number | null)[]): { now: string; low: string; high: string } {
  const known = points.filter((point) => point !== null);
  const edge = (pick: (...values: number[]) => number) => percent(known.length ? pick(...known) : null);
  return { now: percent(points.at(-1)), low: edge(Math.min), high: edge(Math.max) };
}
