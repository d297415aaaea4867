/** Numbers and times as people read them. `null` is "not known" and shows as a dash, never as zero. */

import { text } from "./text";

type Maybe = number | null | undefined;

const known = (value: Maybe): value is number => value !== null && value !== undefined && Number.isFinite(value);

/** Three significant digits, without an exponent. */
function significant(value: number): string {
  if (value >= 100) return value.toFixed(0);
  return value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

function scaled(value: number, step: number, units: readonly string[]): string {
  let index = 0;
  // From 999.5 on, a fourth digit would show.
  while (Math.abs(value) >= 999.5 && index < units.length - 1) {
    value /= step;
    index += 1;
  }
  return `${index === 0 ? value.toFixed(0) : significant(value)}${units[index]}`;
}

export function bytes(value: Maybe): string {
  return known(value) ? scaled(value, 1024, [" B", " KiB", " MiB", " GiB", " TiB"]) : text.unknown;
}

/** Parameters of a model: 7.62 B. */
export function parameters(value: Maybe): string {
  return known(value) ? scaled(value, 1000, ["", " K", " M", " B", " T"]) : text.unknown;
}

const integers = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export function integer(value: Maybe): string {
  return known(value) ? integers.format(value) : text.unknown;
}

export function percent(value: Maybe): string {
  return known(value) ? `${value.toFixed(0)} %` : text.unknown;
}

/** Tokens per second: 41.3. */
export function rate(value: Maybe): string {
  return known(value) ? significant(value) : text.unknown;
}

const pad = (value: number): string => String(value).padStart(2, "0");

export function duration(ms: Maybe): string {
  if (!known(ms)) return text.unknown;
  if (ms < 999.5) return `${ms.toFixed(0)} ms`;
  if (ms < 59_950) return `${significant(ms / 1000)} s`;
  return span(ms);
}

/** Whole seconds and up, for running clocks: 4 s, 3 min 04 s, 2 h 05 min, 3 d 4 h. */
export function span(ms: Maybe): string {
  if (!known(ms)) return text.unknown;
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  if (minutes === 0) return `${seconds} s`;
  if (hours === 0) return `${minutes} min ${pad(seconds % 60)} s`;
  return hours < 24 ? `${hours} h ${pad(minutes % 60)} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

const relative = new Intl.RelativeTimeFormat("en", { style: "narrow", numeric: "always" });

export function ago(then: Maybe, now: number): string {
  if (!known(then)) return text.unknown;
  const seconds = Math.max(0, Math.round((now - then) / 1000));
  if (seconds < 5) return "now";
  if (seconds < 60) return relative.format(-seconds, "second");
  if (seconds < 3600) return relative.format(-Math.floor(seconds / 60), "minute");
  if (seconds < 86_400) return relative.format(-Math.floor(seconds / 3600), "hour");
  return relative.format(-Math.floor(seconds / 86_400), "day");
}

const clocks = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const dates = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

/** 18:02:11 */
export const clock = (ms: number): string => clocks.format(ms);

export const dateTime = (ms: number): string => dates.format(ms);
