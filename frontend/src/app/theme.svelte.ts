/** Light, dark, or the system's theme. The script in index.html sets the first paint by the same rule. */

import { MediaQuery } from "svelte/reactivity";
import type { IconName } from "../ui/icons";
import { readPreference, writePreference } from "./preferences";

export type ThemeChoice = "system" | "light" | "dark";
const CHOICES: readonly ThemeChoice[] = ["system", "light", "dark"];

export const THEME_ICONS: Record<ThemeChoice, IconName> = { system: "monitor", light: "sun", dark: "moon" };

export class Theme {
  choice = $state<ThemeChoice>("system");
  readonly #systemIsDark = new MediaQuery("(prefers-color-scheme: dark)");
  /** The theme in use. */
  readonly current = $derived(
    this.choice === "system" ? (this.#systemIsDark.current ? "dark" : "light") : this.choice,
  );

  constructor() {
    const saved = readPreference("theme");
    if (saved === "light" || saved === "dark") this.choice = saved;
  }

  /** Keep the document in step: call in an effect of the root component. */
  apply(): void {
    document.documentElement.dataset.theme = this.current;
  }

  choose(choice: ThemeChoice): void {
    this.choice = choice;
    writePreference("theme", choice === "system" ? null : choice);
  }

  next(): void {
    this.choose(CHOICES[(CHOICES.indexOf(this.choice) + 1) % CHOICES.length]!);
  }
}
