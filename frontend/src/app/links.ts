import type { PageName } from "./routes";
import { text } from "./strings";
import type { IconName } from "../ui/icons";

export interface NavLink {
  page: PageName;
  label: string;
  icon: IconName;
}

const dashboard: NavLink = { page: "dashboard", label: text.nav.dashboard, icon: "dashboard" };
const chat: NavLink = { page: "chat", label: text.nav.chat, icon: "chat" };
const models: NavLink = { page: "models", label: text.nav.models, icon: "models" };

export const sections = [
  { title: text.nav.run, links: [dashboard, chat] },
  { title: text.nav.manage, links: [models] },
];

export const phoneLinks = [dashboard, chat, models];
