import { describe, expect, it } from "vitest";
import { PAGES } from "./app/pages";

const sources = import.meta.glob<string>(["./**/*.ts", "./**/*.svelte", "!./**/*.test.ts"], {
  query: "?raw",
  import: "default",
  eager: true,
});
const files = Object.keys(sources).map((path) => path.slice(2));

/** Files below src/ that a file imports, types included; code that is loaded later (`import()`) is not. */
function importsOf(file: string): string[] {
  const found = sources[`./${file}`]!.matchAll(/(?:^|\n)\s*(?:import|export)\s[^;"]*?["'](\.[^"']+)["']/g);
  return [...found].map(([, path]) => resolve(file, path!)).filter((path) => path !== null);
}

/** null for a file outside src/, and for a style sheet. */
function resolve(file: string, path: string): string | null {
  const target = new URL(path, `file:///src/${file}`).pathname;
  if (!target.startsWith("/src/") || target.endsWith(".css")) return null;
  const bare = target.slice("/src/".length);
  const found = [bare, `${bare}.ts`].find((name) => files.includes(name));
  if (!found) throw new Error(`${file} imports ${path}, which does not exist`);
  return found;
}

/** "ui", "live", "domain", "app" or "pages/<name>"; "" for a file beside the folders. */
const roomOf = (file: string): string => /^(pages\/[^/]+|[^/]+)\//.exec(file)?.[1] ?? "";

const links = files.flatMap((file) => importsOf(file).map((target) => ({ file, target })));

/** Links from rooms that match into rooms that must not be reached from there. */
function forbidden(from: RegExp, to: (target: string, file: string) => boolean): string[] {
  return links
    .filter(({ file, target }) => from.test(roomOf(file)) && to(target, file))
    .map(({ file, target }) => `${file} -> ${target}`);
}

describe("rooms", () => {
  it("are only these", () => {
    const rooms = new Set(files.map((file) => roomOf(file).split("/")[0]));
    expect([...rooms].sort()).toEqual(["", "app", "domain", "live", "pages", "ui"]);
  });

  it("ui/ imports only ui/", () => {
    expect(forbidden(/^ui$/, (target) => roomOf(target) !== "ui")).toEqual([]);
  });

  it("live/ imports only live/, and has no component", () => {
    expect(forbidden(/^live$/, (target) => roomOf(target) !== "live")).toEqual([]);
    expect(files.filter((file) => roomOf(file) === "live" && file.endsWith(".svelte"))).toEqual([]);
  });

  it("domain/ imports no page, and of app/ only the context", () => {
    const isAllowed = (target: string): boolean =>
      ["ui", "live", "domain"].includes(roomOf(target)) || target === "app/context.svelte.ts";
    expect(forbidden(/^domain$/, (target) => !isAllowed(target))).toEqual([]);
  });

  it("app/ imports no page", () => {
    expect(forbidden(/^app$/, (target) => roomOf(target).startsWith("pages/"))).toEqual([]);
  });

  it("a page imports no other page", () => {
    const isOther = (target: string, file: string): boolean =>
      roomOf(target).startsWith("pages/") && roomOf(target) !== roomOf(file);
    expect(forbidden(/^pages\//, isOther)).toEqual([]);
  });

  it("have no import cycles", () => {
    const done = new Set<string>();
    function visit(file: string, path: readonly string[]): void {
      if (path.includes(file)) throw new Error(`cycle: ${[...path.slice(path.indexOf(file)), file].join(" -> ")}`);
      if (done.has(file)) return;
      importsOf(file).forEach((target) => visit(target, [...path, file]));
      done.add(file);
    }
    expect(() => files.forEach((file) => visit(file, []))).not.toThrow();
    expect(links.length).toBeGreaterThan(100);
  });
});

describe("pages", () => {
  const folders = new Set(files.flatMap((file) => /^pages\/([^/]+)\//.exec(file)?.[1] ?? []));

  it("each have a row, and each row a page", () => {
    expect([...folders].sort()).toEqual(PAGES.map((row) => row.name).sort());
  });

  it.each(PAGES)("$name has a component, a text and a budget", ({ name, kilobytes }) => {
    expect(files).toContain(`pages/${name}/Page.svelte`);
    expect(files).toContain(`pages/${name}/text.ts`);
    expect(kilobytes).toBeGreaterThan(0);
  });

  it("share no name, address or chord", () => {
    for (const values of [PAGES.map((row) => row.name), PAGES.flatMap((row) => row.paths), PAGES.map((row) => row.chord)]) {
      expect(new Set(values).size).toBe(values.length);
    }
  });

  it("fill at most the places of the bottom bar", () => {
    expect(PAGES.filter((row) => row.onPhone).length).toBeLessThanOrEqual(4);
  });
});
