import type { Choice } from "./theme.svelte";
import type { IconName } from "../ui/icons";

export const themeIcons: Record<Choice, IconName> = { system: "monitor", light: "sun", dark: "moon" };
