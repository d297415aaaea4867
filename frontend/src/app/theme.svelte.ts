/** Light, dark, or as the system says. The script in index.html sets the first paint by the same rule. */

import { MediaQuery } from "svelte/reactivity";
import { remember, remembered } from "./preferences";

export type Choice = "system" | "light" | "dark";
export const CHOICES: readonly Choice[] = ["system", "light", "dark"];

export class Theme {
  choice = $state<Choice>("system");
  readonly #systemDark = new MediaQuery("(prefers-color-scheme: dark)");
  /** What is shown. */
  readonly shown = $derived(
    this.choice === "system" ? (this.#systemDark.current ? "dark" : "light") : this.choice,
  );

  constructor() {
    const saved = remembered("theme");
    if (saved === "light" || saved === "dark") this.choice = saved;
  }

  /** Call once from the root component: keeps the document in step. */
  apply(): void {
    document.documentElement.dataset.theme = this.shown;
  }

  choose(choice: Choice): void {
    this.choice = choice;
    remember("theme", choice === "system" ? null : choice);
  }

  next(): void {
    this.choose(CHOICES[(CHOICES.indexOf(this.choice) + 1) % CHOICES.length]!);
  }
}
