import type { UiModel } from "../../live/protocol";

/** The model to talk to: the one picked, else one that is ready, a favourite, the last used, the first. */
export function preferred(models: readonly UiModel[], picked: string | null): UiModel | null {
  const byUse = [...models].sort((a, b) => (b.lastUsedAtMs ?? 0) - (a.lastUsedAtMs ?? 0));
  return (
    models.find((model) => model.slug === picked) ??
    byUse.find((model) => model.status === "ready") ??
    byUse.find((model) => model.isFavorite) ??
    byUse[0] ??
    null
  );
}
