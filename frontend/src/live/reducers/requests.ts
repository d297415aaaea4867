/** The last fifty finished requests, newest first. */

import type { Reducer } from "../feed.svelte";
import type { RequestRecord } from "../protocol.gen";

const MAX_REQUESTS = 50;

export const requests: Reducer<"requests", readonly RequestRecord[]> = {
  topic: "requests",
  fromSnapshot: (data) => newest(data.records),
  apply(state, items) {
    const known = new Set(state.map((record) => record.id));
    return newest([...state, ...items.filter((record) => !known.has(record.id))]);
  },
};

function newest(records: readonly RequestRecord[]): readonly RequestRecord[] {
  return [...records].sort((a, b) => b.arrived_at_ms - a.arrived_at_ms).slice(0, MAX_REQUESTS);
}
