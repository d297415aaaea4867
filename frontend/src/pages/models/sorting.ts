/** Filter and sort order of the model table, as pure functions. */

import type { ModelStatus, ModelSummary } from "../../live/protocol.gen";

export const COLUMNS = ["name", "architecture", "parameters", "quantization", "size", "context", "lastUsed", "state"] as const;
export type Column = (typeof COLUMNS)[number];
export interface Sort {
  column: Column;
  descending: boolean;
}

const STATE_ORDER: Record<ModelStatus, number> = {
  ready: 0,
  sleeping: 1,
  loading: 2,
  queued: 3,
  stopping: 4,
  failed: 5,
  unloaded: 6,
};

const KEYS: Record<Column, (model: ModelSummary) => string | number | null> = {
  name: (m) => m.name,
  architecture: (m) => m.architecture,
  parameters: (m) => m.parameter_count,
  quantization: (m) => m.quantization,
  size: (m) => m.size_bytes,
  context: (m) => m.context_length,
  lastUsed: (m) => m.last_used_at_ms,
  state: (m) => STATE_ORDER[m.status],
};

/** Sort order written in the address, "size" or "-size"; by name when it is neither. */
export function parseSort(written: string | null): Sort {
  const descending = written?.startsWith("-") ?? false;
  const column = COLUMNS.find((c) => c === written?.replace(/^-/, ""));
  return column ? { column, descending } : { column: "name", descending: false };
}

export function formatSort(order: Sort): string {
  if (order.column === "name" && !order.descending) return "";
  return (order.descending ? "-" : "") + order.column;
}

/** Sort order after a press on a column's head: by that column, or the other way round. */
export function toggleSort(order: Sort, column: Column): Sort {
  return { column, descending: order.column === column ? !order.descending : false };
}

const words = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

/** Models that contain every word of the query. Unknown values come last in both directions. */
export function filterAndSort(models: readonly ModelSummary[], query: string, order: Sort): ModelSummary[] {
  const wanted = query.toLowerCase().split(/\s+/).filter(Boolean);
  const found = models.filter((model) => {
    const text = `${model.name} ${model.slug} ${model.architecture} ${model.quantization ?? ""} ${model.kind} ${model.status}`;
    return wanted.every((word) => text.toLowerCase().includes(word));
  });
  const key = KEYS[order.column];
  return found.sort((a, b) => compare(key(a), key(b), order.descending) || words.compare(a.name, b.name));
}

function compare(a: string | number | null, b: string | number | null, descending: boolean): number {
  if (a === null || b === null) return Number(a === null) - Number(b === null);
  const result = typeof a === "number" ? a - (b as number) : words.compare(a, b as string);
  return descending ? -result : result;
}
