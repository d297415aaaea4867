/** Markdown that streams in: a finished block is rendered once, only the last block is rendered again. */

import DOMPurify from "dompurify";
import { Marked, type Token } from "marked";

const ESCAPES: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const escapeHtml = (text: string): string => text.replace(/[&<>"']/g, (character) => ESCAPES[character]!);

const marked = new Marked({
  gfm: true,
  renderer: {
    // Markup in an answer is shown as text. Images are links, as loading one would send its address, which may carry
    // the prompt, to a foreign server.
    html: ({ text }) => escapeHtml(text),
    image: ({ href, text }) => `<a href="${escapeHtml(href)}">${escapeHtml(text || href)}</a>`,
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
    code: ({ text, lang }) =>
      `<pre tabindex="0"><code class="language-${escapeHtml(/^[\w+#.-]*/.exec(lang ?? "")![0])}">${escapeHtml(text)}\n</code></pre>`,
  },
});

const purify = DOMPurify(window);
purify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName !== "A") return;
  if (!/^(https?|mailto):/i.test(node.getAttribute("href") ?? "")) node.removeAttribute("href");
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer");
});

function sanitize(html: string): string {
  return purify.sanitize(html, {
    FORBID_TAGS: ["style", "form", "input", "button", "img", "picture", "video", "audio", "svg", "math"],
    FORBID_ATTR: ["style", "id", "name"],
    ALLOW_DATA_ATTR: false,
  });
}

const render = (tokens: Token[]): string => sanitize(marked.parser(tokens));

export class StreamingMarkdown {
  /** HTML of the finished blocks. */
  frozen: readonly string[] = [];
  /** HTML of the last block, which may still change. */
  tail = "";
  #length = 0;
  #source = "";

  /** `text` must begin with the text of the call before. `complete`: the text has ended. */
  update(text: string, complete: boolean): void {
    this.#source += text.slice(this.#length);
    this.#length = text.length;
    const tokens = marked.lexer(this.#source);
    const last = complete ? tokens.length : lastBlock(tokens);
    const done = tokens.slice(0, last);
    if (done.length) {
      this.frozen = [...this.frozen, ...done.filter((t) => t.type !== "space").map((token) => render([token]))];
      this.#source = this.#source.slice(done.reduce((length, token) => length + token.raw.length, 0));
    }
    this.tail = complete ? "" : render(tokens.slice(last));
  }
}

/** Index of the last token that is more than blank lines. */
function lastBlock(tokens: readonly Token[]): number {
  let index = tokens.length - 1;
  while (index > 0 && tokens[index]!.type === "space") index -= 1;
  return Math.max(index, 0);
}
