import { beforeEach, describe, expect, it } from "vitest";
import { matchRoute, PAGES } from "./pages";
import { Router } from "./router.svelte";

const pageAt = (path: string) => matchRoute(path).page;
const at = (path: string): void => history.replaceState(null, "", path);

describe("routes", () => {
  it("know their pages, with or without a slash at the end", () => {
    expect(pageAt("/")).toBe("dashboard");
    expect(pageAt("/dashboard")).toBe("dashboard");
    expect(pageAt("/models/")).toBe("models");
    expect(pageAt("/models/7/nothing")).toBeNull();
    expect(pageAt("/v1/models")).toBeNull();
    expect(pageAt("/models/7")).toBeNull();
  });

  it("know the number in a path", () => {
    expect(matchRoute("/chat/17")).toEqual({ page: "chat", id: 17 });
    expect(matchRoute("/chat/")).toEqual({ page: "chat", id: null });
    expect(pageAt("/chat/0")).toBeNull();
    expect(pageAt("/chat/x")).toBeNull();
  });

  it("lead from every page back to itself", () => {
    for (const { name, paths } of PAGES) for (const path of paths) expect(pageAt(path.replace(":id", "7"))).toBe(name);
  });
});

describe("the router", () => {
  beforeEach(() => at("/tools/llm/models?q=qwen"));

  it("works below a prefix", () => {
    const router = new Router(`${location.origin}/tools/llm/`);
    expect(router.page).toBe("models");
    expect(router.query.get("q")).toBe("qwen");
    expect(router.href("chat")).toBe("/tools/llm/chat");
    router.go(router.href("chat"));
    expect([router.page, location.pathname, router.navigations]).toEqual(["chat", "/tools/llm/chat", 1]);
    router.replace(router.href("chat", 3));
    expect([router.page, router.id, location.pathname, router.navigations]).toEqual(["chat", 3, "/tools/llm/chat/3", 1]);
  });

  it("keeps filters in the address without a navigation", () => {
    const router = new Router(`${location.origin}/tools/llm/`);
    router.setQuery("sort", "size");
    expect(location.search).toBe("?q=qwen&sort=size");
    router.setQuery("q", "");
    router.setQuery("sort", "");
    expect([location.search, router.navigations]).toEqual(["", 0]);
  });

  it("follows links to its pages and leaves all others to the browser", () => {
    new Router(`${location.origin}/tools/llm/`);
    document.body.innerHTML =
      `<a id="own" href="/tools/llm/chat"><b>chat</b></a><a id="api" href="/tools/llm/api/docs">api</a>` +
      `<a id="tab" href="/tools/llm/chat" target="_blank">tab</a>`;
    const click = (selector: string): boolean => {
      const event = new MouseEvent("click", { bubbles: true, cancelable: true });
      // A link that the router leaves alone must not navigate the test's browser.
      addEventListener("click", (e) => e.preventDefault(), { once: true });
      document.querySelector(selector)!.dispatchEvent(event);
      return location.pathname === "/tools/llm/chat";
    };
    expect(click("#api")).toBe(false);
    expect(click("#tab")).toBe(false);
    expect(click("#own b")).toBe(true);
  });
});
