/** Filtering and sorting the models, as pure functions. */

import type { ModelStatus, ModelSummary } from "../../live/protocol.gen";

export const COLUMNS = ["name", "architecture", "parameters", "quantization", "size", "context", "lastUsed", "state"] as const;
export type Column = (typeof COLUMNS)[number];
export interface Order {
  column: Column;
  descending: boolean;
}

const ORDER_OF_STATES: Record<ModelStatus, number> = {
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
  state: (m) => ORDER_OF_STATES[m.status],
};

/** "size" or "-size", as in the address; by name if it is neither. */
export function parseOrder(written: string | null): Order {
  const descending = written?.startsWith("-") ?? false;
  const column = COLUMNS.find((c) => c === written?.replace(/^-/, ""));
  return column ? { column, descending } : { column: "name", descending: false };
}

export function writeOrder(order: Order): string {
  if (order.column === "name" && !order.descending) return "";
  return (order.descending ? "-" : "") + order.column;
}

/** Pressing a column's head: sort by it, or turn the order around. */
export function pressed(order: Order, column: Column): Order {
  return { column, descending: order.column === column ? !order.descending : false };
}

const words = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

/** Models that have every word of the query somewhere. Unknown values come last, either way. */
export function listed(models: readonly ModelSummary[], query: string, order: Order): ModelSummary[] {
  const wanted = query.toLowerCase().split(/\s+/).filter(Boolean);
  const found = models.filter((model) => {
    const text = `${model.name} ${model.slug} ${model.architecture} ${model.quantization ?? ""} ${model.kind} ${model.status}`;
    return wanted.every((word) => text.toLowerCase().includes(word));
  });
  const key = KEYS[order.column];
  return found.sort((a, b) => compared(key(a), key(b), order.descending) || words.compare(a.name, b.name));
}

function compared(a: string | number | null, b: string | number | null, descending: boolean): number {
  if (a === null || b === null) return Number(a === null) - Number(b === null);
  const result = typeof a === "number" ? a - (b as number) : words.compare(a, b as string);
  return descending ? -result : result;
}
