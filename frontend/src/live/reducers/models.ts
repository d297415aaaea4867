/** Models by name, as people count: qwen3-8b before qwen3-14b. */

import type { Reducer } from "../feed.svelte";
import type { ModelSummary } from "../protocol.gen";

const byName = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

function sorted(models: Iterable<ModelSummary>): ModelSummary[] {
  return [...models].sort((a, b) => byName.compare(a.name, b.name) || a.id - b.id);
}

export const models: Reducer<"models", readonly ModelSummary[]> = {
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
