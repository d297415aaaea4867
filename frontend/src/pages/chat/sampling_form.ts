/** Sampling options as a form: every field is a text, and an empty field leaves the option at its default. */

import type { Sampling } from "../../live/protocol.gen";
import { text } from "./text";

/** Settings of a conversation besides its model. A system prompt of null is the one of the service's settings. */
export interface ConversationSettings {
  system_prompt: string | null;
  sampling: Sampling;
}

export const DEFAULT_SAMPLING: Sampling = {
  temperature: null,
  top_p: null,
  top_k: null,
  min_p: null,
  num_predict: null,
  repeat_penalty: null,
  presence_penalty: null,
  frequency_penalty: null,
  seed: null,
  stop: null,
  context_history_limit: null,
};

export const DEFAULT_SETTINGS: ConversationSettings = { system_prompt: null, sampling: DEFAULT_SAMPLING };

export type SamplingOption = keyof Sampling;
export type SamplingForm = Record<SamplingOption, string>;

/** Options in the order of the form. */
export const OPTIONS: readonly SamplingOption[] = [
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

const INTEGERS: ReadonlySet<SamplingOption> = new Set<SamplingOption>([
  "top_k",
  "num_predict",
  "seed",
  "context_history_limit",
]);

export function toForm(sampling: Sampling): SamplingForm {
  const field = (value: number | string[] | null): string =>
    value === null ? "" : typeof value === "number" ? String(value) : value.join("\n");
  return Object.fromEntries(OPTIONS.map((option) => [option, field(sampling[option])])) as SamplingForm;
}

/** The options that the form holds, and for each wrong field what is wrong with it. */
export function parseForm(form: SamplingForm): {
  sampling: Sampling;
  problems: Partial<Record<SamplingOption, string>>;
} {
  const problems: Partial<Record<SamplingOption, string>> = {};
  const entry = (option: SamplingOption): [SamplingOption, number | string[] | null] => {
    const written = form[option];
    if (written.trim() === "") return [option, null];
    if (option === "stop") return [option, written.split("\n").filter((line) => line !== "")];
    const value = Number(written.trim().replace(",", "."));
    if (!Number.isFinite(value)) problems[option] = text.settings.number;
    else if (INTEGERS.has(option) && !Number.isInteger(value)) problems[option] = text.settings.whole;
    return [option, value];
  };
  return { sampling: Object.fromEntries(OPTIONS.map(entry)) as unknown as Sampling, problems };
}

export const isDefault = (settings: ConversationSettings): boolean =>
  settings.system_prompt === null && Object.values(settings.sampling).every((value) => value === null);
