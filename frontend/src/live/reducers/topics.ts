/** The reducers of all topics. */

import type { EngineSummary, LiveRequest, ModelSummary, RequestRecord, Sample } from "../protocol.gen";
import type { Reduction } from "../feed.svelte";

const byName = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

function sorted(models: Iterable<ModelSummary>): ModelSummary[] {
  return [...models].sort((a, b) => byName.compare(a.name, b.name) || a.id - b.id);
}

/** Models by name. */
export const models: Reduction<"models", readonly ModelSummary[]> = {
  topic: "models",
  fromSnapshot: (data) => sorted(data.models),
  apply(state, items) {
    const byId = new Map(state.map((model) => [model.id, model]));
    for (const item of items) {
      if (item.kind === "remove") byId.delete(item.id);
      else byId.set(item.model.id, item.model);
    }
    return sorted(byId.values());
  },
};

export const engine: Reduction<"engine", EngineSummary> = {
  topic: "engine",
  fromSnapshot: (data) => data.engine,
  apply: (state, items) => items.at(-1) ?? state,
};

export const WINDOW_MS = 15 * 60_000;

/** Samples of the last fifteen minutes, oldest first. */
export const metrics: Reduction<"metrics", readonly Sample[]> = {
  topic: "metrics",
  fromSnapshot: (data) => recent(data.samples),
  apply(state, items) {
    const last = state.at(-1)?.timestamp_ms ?? -Infinity;
    return recent([...state, ...items.filter((sample) => sample.timestamp_ms > last)]);
  },
};

function recent(samples: readonly Sample[]): readonly Sample[] {
  const start = (samples.at(-1)?.timestamp_ms ?? 0) - WINDOW_MS;
  return samples.filter((sample) => sample.timestamp_ms >= start);
}

/** The requests in flight, newest first. */
export const live: Reduction<"live", readonly LiveRequest[]> = {
  topic: "live",
  fromSnapshot: (data) => data.live,
  apply: (state, items) => items.at(-1) ?? state,
};

const KEPT_REQUESTS = 50;

/** The last fifty finished requests, newest first. */
export const requests: Reduction<"requests", readonly RequestRecord[]> = {
  topic: "requests",
  fromSnapshot: (data) => newest(data.records),
  apply(state, items) {
    const known = new Set(state.map((record) => record.id));
    return newest([...state, ...items.filter((record) => !known.has(record.id))]);
  },
};

function newest(records: readonly RequestRecord[]): readonly RequestRecord[] {
  return [...records].sort((a, b) => b.arrived_at_ms - a.arrived_at_ms).slice(0, KEPT_REQUESTS);
}
