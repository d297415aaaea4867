/** Where we are. The History API, below the base path the server announced. */

import { pathOf, placeAt, type PageName } from "./routes";

export class Router {
  /** Path below the base, starting with "/". */
  path = $state("/");
  /** Query parameters; what a page filters by lives here, so that a link carries it. */
  query = $state.raw(new URLSearchParams());
  /** Counts navigations, so that focus moves on each, even to the same page. */
  visits = $state(0);
  readonly #place = $derived(placeAt(this.path));
  readonly page = $derived(this.#place.page);
  /** Which of the page's things, if the path names one. */
  readonly id = $derived(this.#place.id);

  /** "/" or "/some/prefix/". */
  readonly base: string;

  constructor(baseUri: string) {
    this.base = new URL(baseUri).pathname;
    this.#read();
    addEventListener("popstate", () => {
      this.#read();
      this.visits += 1;
    });
    document.addEventListener("click", (event) => this.#onClick(event));
  }

  href(page: PageName, id: number | null = null): string {
    return this.base + pathOf(page).slice(1) + (id === null ? "" : `/${id}`);
  }

  go(href: string): void {
    history.pushState(null, "", href);
    this.#read();
    this.visits += 1;
    scrollTo(0, 0);
  }

  /** The same visit under another address: no history entry, no focus move. */
  rename(href: string): void {
    history.replaceState(null, "", href);
    this.#read();
  }

  /** Change one parameter in place: no history entry, no focus move. An empty value removes it. */
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
    if (placeAt(`/${link.pathname.slice(this.base.length)}`).page === null) return; // the API's own pages, a download
    event.preventDefault();
    this.go(link.href);
  }
}
