/** The address of the page, by the History API, below the base path that the server announced. */

import { matchRoute, pageRow, type PageName } from "./pages";

export class Router {
  /** Path below the base; begins with "/". */
  path = $state("/");
  /** Query parameters. Filters of a page live here, so that a link carries them. */
  query = $state.raw(new URLSearchParams());
  /** Number of navigations so far; it grows even when a link leads to the same page, so that the focus moves. */
  navigations = $state(0);
  readonly #route = $derived(matchRoute(this.path));
  readonly page = $derived(this.#route.page);
  /** The number in the path, if the page has an `:id`. */
  readonly id = $derived(this.#route.id);

  /** "/" or "/some/prefix/". */
  readonly base: string;

  constructor(baseUri: string) {
    this.base = new URL(baseUri).pathname;
    this.#read();
    addEventListener("popstate", () => {
      this.#read();
      this.navigations += 1;
    });
    document.addEventListener("click", (event) => this.#onClick(event));
  }

  href(page: PageName, id: number | null = null): string {
    return this.base + pageRow(page).paths[0]!.slice(1) + (id === null ? "" : `/${id}`);
  }

  go(href: string): void {
    history.pushState(null, "", href);
    this.#read();
    this.navigations += 1;
    scrollTo(0, 0);
  }

  /** Change the address without a history entry and without moving the focus. */
  replace(href: string): void {
    history.replaceState(null, "", href);
    this.#read();
  }

  /** Change one query parameter in the same way. An empty value removes it. */
  setQuery(name: string, value: string): void {
    const query = new URLSearchParams(this.query);
    if (value) query.set(name, value);
    else query.delete(name);
    const search = query.size ? `?${query}` : "";
    history.replaceState(null, "", location.pathname + search);
    this.query = query;
  }

  #read(): void {
    const below = location.pathname.startsWith(this.base) ? location.pathname.slice(this.base.length) : "";
    this.path = `/${below}`;
    this.query = new URLSearchParams(location.search);
  }

  #onClick(event: MouseEvent): void {
    if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey) return;
    const link = (event.target as Element).closest("a");
    if (!link || link.target || link.origin !== location.origin || !link.pathname.startsWith(this.base)) return;
    // The API's own pages and downloads are left to the browser.
    if (matchRoute(`/${link.pathname.slice(this.base.length)}`).page === null) return;
    event.preventDefault();
    this.go(link.href);
  }
}
