/** Samples of the last fifteen minutes, oldest first. */

import type { Reducer } from "../feed.svelte";
import type { Sample } from "../protocol.gen";

export const WINDOW_MS = 15 * 60_000;

export const metrics: Reducer<"metrics", readonly Sample[]> = {
  topic: "metrics",
  fromSnapshot: (data) => inWindow(data.samples),
  apply(state, items) {
    const last = state.at(-1)?.timestamp_ms ?? -Infinity;
    return inWindow([...state, ...items.filter((sample) => sample.timestamp_ms > last)]);
  },
};

function inWindow(samples: readonly Sample[]): readonly Sample[] {
  const start = (samples.at(-1)?.timestamp_ms ?? 0) - WINDOW_MS;
  return samples.filter((sample) => sample.timestamp_ms >= start);
}
