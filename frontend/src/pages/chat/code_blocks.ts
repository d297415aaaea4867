/** What a finished code block gets: colours and a button to copy it. */

import { lazily } from "../../ui/retry_import";
import { text } from "../../app/strings";

export function dressCode(block: HTMLElement): void {
  for (const code of block.querySelectorAll<HTMLElement>("pre > code")) {
    void colour(code);
    if (navigator.clipboard) code.parentElement!.append(copyButton(code));
  }
}

async function colour(code: HTMLElement): Promise<void> {
  const language = /language-(\S+)/.exec(code.className)?.[1];
  if (!language) return;
  const { highlighted } = await lazily(() => import("./highlight"));
  const html = highlighted(code.textContent, language);
  // highlight.js escapes the code; the markup is its own.
  if (html !== null) code.innerHTML = html;
}

function copyButton(code: HTMLElement): HTMLButtonElement {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy-code";
  button.textContent = text.chat.copy;
  button.addEventListener("click", () => {
    void navigator.clipboard.writeText(code.textContent).then(() => {
      button.textContent = text.chat.copied;
      setTimeout(() => (button.textContent = text.chat.copy), 2000);
    });
  });
  return button;
}
