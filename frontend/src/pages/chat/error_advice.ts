/** Advice about an answer that failed. */

import type { ChatError } from "../../live/reducers/chat";
import { text } from "./text";

const ADVICE_BY_CODE: Record<string, string> = {
  CONNECTION_FAILED: text.errors.unreachableHint,
  NOT_FOUND: text.errors.notFound,
  RATE_LIMITED: text.errors.overloaded,
  CANCELLED: text.errors.cancelled,
  INSUFFICIENT_MEMORY: text.errors.unavailable,
  SERVICE_UNAVAILABLE: text.errors.unavailable,
  LLAMACPP_ERROR: text.errors.unavailable,
};

export function adviceFor({ code, message }: ChatError): string {
  if (/context|exceed/i.test(message)) return text.errors.tooLarge;
  return ADVICE_BY_CODE[code] ?? text.errors.other;
}
