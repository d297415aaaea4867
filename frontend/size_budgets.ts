/** The build fails when a page, or what is loaded before all pages, is larger than its budget in src/app/pages.ts. */

import { gzipSync } from "node:zlib";
import type { Plugin } from "vite";
import { FIRST_LOAD_KILOBYTES, PAGES } from "./src/app/pages.ts";

export interface Chunk {
  fileName: string;
  code: string;
  isEntry: boolean;
  /** Source file of a chunk that is loaded by `import()`; null for shared code. */
  facadeModuleId: string | null;
  imports: string[];
  dynamicImports: string[];
}

export interface Size {
  /** Name of a page, or "first load". */
  name: string;
  kilobytes: number;
  budget: number;
}

/** Gzipped JavaScript of the first load, and what each page adds with all the code that it can load. */
export function sizes(chunks: readonly Chunk[]): Size[] {
  const byName = new Map(chunks.map((chunk) => [chunk.fileName, chunk]));
  const first = new Set<string>();
  for (const chunk of chunks) if (chunk.isEntry) collect(chunk.fileName, byName, first, false);
  const pages = PAGES.map(({ name, kilobytes }): Size => {
    const page = chunks.find((chunk) => chunk.facadeModuleId?.endsWith(`/src/pages/${name}/Page.svelte`));
    if (!page) throw new Error(`page ${name} has no chunk of its own`);
    const loaded = new Set(first);
    collect(page.fileName, byName, loaded, true);
    return { name, kilobytes: total(byName, [...loaded].filter((file) => !first.has(file))), budget: kilobytes };
  });
  return [{ name: "first load", kilobytes: total(byName, [...first]), budget: FIRST_LOAD_KILOBYTES }, ...pages];
}

function collect(file: string, chunks: ReadonlyMap<string, Chunk>, found: Set<string>, withDynamic: boolean): void {
  const chunk = chunks.get(file);
  if (!chunk || found.has(file)) return;
  found.add(file);
  const next = withDynamic ? [...chunk.imports, ...chunk.dynamicImports] : chunk.imports;
  for (const each of next) collect(each, chunks, found, withDynamic);
}

const total = (chunks: ReadonlyMap<string, Chunk>, files: readonly string[]): number =>
  files.reduce((sum, file) => sum + gzipSync(chunks.get(file)!.code, { level: 9 }).length, 0) / 1000;

export function sizeBudgets(): Plugin {
  return {
    name: "size-budgets",
    apply: "build",
    writeBundle(_, bundle) {
      const found = sizes(Object.values(bundle).filter((output) => output.type === "chunk"));
      const lines = found.map(({ name, kilobytes, budget }) => `${name}: ${kilobytes.toFixed(1)} of ${budget} kB`);
      console.log(`Sizes, gzipped\n  ${lines.join("\n  ")}`);
      const over = found.filter(({ kilobytes, budget }) => kilobytes > budget);
      if (over.length) this.error(`over the size budget of src/app/pages.ts: ${over.map(({ name }) => name).join(", ")}`);
    },
  };
}
