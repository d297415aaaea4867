/** Requests in flight, newest first. Each item is the whole list. */

import type { Reducer } from "../feed.svelte";
import type { LiveRequest } from "../protocol.gen";

export const live: Reducer<"live", readonly LiveRequest[]> = {
  topic: "live",
  fromSnapshot: (data) => data.live,
  apply: (state, items) => items.at(-1) ?? state,
};
