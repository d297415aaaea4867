/** Code of the pages, each in a chunk of its own that is loaded on the first visit. */

import type { Component } from "svelte";
import type { PageName } from "./pages";

const modules = import.meta.glob<{ default: Component }>("../pages/*/Page.svelte");

/** Raises an Error when the code cannot be loaded. */
export async function loadPage(name: PageName): Promise<Component> {
  return (await modules[`../pages/${name}/Page.svelte`]!()).default;
}
