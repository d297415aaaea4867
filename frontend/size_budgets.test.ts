import { expect, test } from "vitest";
import { sizes, type Chunk } from "./size_budgets";
import { PAGES } from "./src/app/pages";

const chunk = (fileName: string, more: Partial<Chunk> = {}): Chunk => ({
  fileName,
  code: fileName.repeat(200),
  isEntry: false,
  facadeModuleId: null,
  imports: [],
  dynamicImports: [],
  ...more,
});
const pageChunks = PAGES.map(({ name }) =>
  chunk(`${name}.js`, {
    facadeModuleId: `/x/src/pages/${name}/Page.svelte`,
    imports: ["shared.js", "main.js"],
    dynamicImports: name === "chat" ? ["markdown.js"] : [],
  }),
);
const chunks = [
  chunk("main.js", { isEntry: true, dynamicImports: pageChunks.map(({ fileName }) => fileName) }),
  chunk("shared.js"),
  chunk("markdown.js"),
  ...pageChunks,
];
const kilobytes = (name: string, from: readonly Chunk[]): number => sizes(from).find((s) => s.name === name)!.kilobytes;

test("a page counts with all that it can load, without the first load", () => {
  const without = (file: string): Chunk[] => chunks.filter(({ fileName }) => fileName !== file);
  for (const file of ["shared.js", "markdown.js"]) {
    expect(kilobytes("chat", chunks)).toBeGreaterThan(kilobytes("chat", without(file)));
  }
  expect(kilobytes("models", chunks)).toBe(kilobytes("models", without("markdown.js")));
  expect(kilobytes("models", chunks)).toBe(kilobytes("models", without("main.js")));
  expect(kilobytes("first load", chunks)).toBe(kilobytes("first load", [...without("shared.js")]));
});

test("a page without a chunk of its own is an error", () => {
  expect(() => sizes(chunks.filter(({ fileName }) => fileName !== "chat.js"))).toThrow("page chat");
});
