/** What to do about a missing answer. */

import { text } from "../../app/strings";
import type { Failure } from "../../live/reducers/chat";

const HINTS: Record<string, string> = {
  CONNECTION_FAILED: text.chatErrors.unreachableHint,
  NOT_FOUND: text.chatErrors.notFound,
  RATE_LIMITED: text.chatErrors.overloaded,
  CANCELLED: text.chatErrors.cancelled,
  INSUFFICIENT_MEMORY: text.chatErrors.unavailable,
  SERVICE_UNAVAILABLE: text.chatErrors.unavailable,
  LLAMACPP_ERROR: text.chatErrors.unavailable,
};

export function hint({ code, message }: Failure): string {
  if (/context|exceed/i.test(message)) return text.chatErrors.tooLarge;
  return HINTS[code] ?? text.chatErrors.other;
}
