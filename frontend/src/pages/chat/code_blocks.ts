/** Decoration of finished code blocks: syntax colours, and a button that copies the code. */

import { retryImport } from "../../ui/retry_import";
import { text } from "../../ui/text";

export function decorateCodeBlocks(block: HTMLElement): void {
  for (const code of block.querySelectorAll<HTMLElement>("pre > code")) {
    void colour(code);
    if (navigator.clipboard) code.parentElement!.append(copyButton(code));
  }
}

async function colour(code: HTMLElement): Promise<void> {
  const language = /language-(\S+)/.exec(code.className)?.[1];
  if (!language) return;
  const { highlight } = await retryImport(() => import("./highlight"));
  const html = highlight(code.textContent, language);
  // highlight.js escapes the code; the markup is its own.
  if (html !== null) code.innerHTML = html;
}

function copyButton(code: HTMLElement): HTMLButtonElement {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy-code";
  button.textContent = text.copy;
  button.addEventListener("click", () => {
    void navigator.clipboard.writeText(code.textContent).then(() => {
      button.textContent = text.copied;
      setTimeout(() => (button.textContent = text.copy), 2000);
    });
  });
  return button;
}
