/** The engine's present state. */

import type { Reducer } from "../feed.svelte";
import type { EngineSummary } from "../protocol.gen";

export const engine: Reducer<"engine", EngineSummary> = {
  topic: "engine",
  fromSnapshot: (data) => data.engine,
  apply: (state, items) => items.at(-1) ?? state,
};
