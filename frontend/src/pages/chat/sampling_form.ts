/** Sampling options as a form: every field is a text, an empty one leaves the option to others. */

import type { Sampling } from "../../live/protocol.gen";
import { text } from "../../app/strings";

export type Option = keyof Sampling;
export type Form = Record<Option, string>;

/** In the order in which they are shown. */
export const OPTIONS: readonly Option[] = [
  "temperature",
  "num_predict",
  "context_history_limit",
  "top_p",
  "top_k",
  "min_p",
  "repeat_penalty",
  "presence_penalty",
  "frequency_penalty",
  "seed",
  "stop",
];

const WHOLE: ReadonlySet<Option> = new Set<Option>(["top_k", "num_predict", "seed", "context_history_limit"]);

export function filled(sampling: Sampling): Form {
  const field = (value: number | string[] | null): string =>
    value === null ? "" : typeof value === "number" ? String(value) : value.join("\n");
  return Object.fromEntries(OPTIONS.map((option) => [option, field(sampling[option])])) as Form;
}

/** What the form says, and what is wrong with it by field. */
export function read(form: Form): { sampling: Sampling; problems: Partial<Record<Option, string>> } {
  const problems: Partial<Record<Option, string>> = {};
  const entry = (option: Option): [Option, number | string[] | null] => {
    const written = form[option];
    if (written.trim() === "") return [option, null];
    if (option === "stop") return [option, written.split("\n").filter((line) => line !== "")];
    const value = Number(written.trim().replace(",", "."));
    if (!Number.isFinite(value)) problems[option] = text.rules.number;
    else if (WHOLE.has(option) && !Number.isInteger(value)) problems[option] = text.rules.whole;
    return [option, value];
  };
  return { sampling: Object.fromEntries(OPTIONS.map(entry)) as unknown as Sampling, problems };
}

export const isDefault = (rules: { system_prompt: string | null; sampling: Sampling }): boolean =>
  rules.system_prompt === null && Object.values(rules.sampling).every((value) => value === null);
