import { svelte } from "@sveltejs/vite-plugin-svelte";
import tailwindcss from "@tailwindcss/vite";
import { defineConfig, type ProxyOptions } from "vite";
import { sizeBudgets } from "./size_budgets.ts";

const service = process.env.LLAMA_ASYNC_PROXY_URL ?? "http://127.0.0.1:3000";

/** The service accepts same-origin requests only, so what the development server forwards says it comes from there. */
const forwarded: ProxyOptions = {
  target: service,
  changeOrigin: true,
  ws: true,
  rewriteWsOrigin: true,
  configure: (proxy) => proxy.on("proxyReq", (request) => request.setHeader("origin", service)),
};

export default defineConfig({
  // Relative, so that one build works under any sub-path: the server sets <base href>.
  base: "./",
  plugins: [tailwindcss(), svelte(), sizeBudgets()],
  build: {
    target: "es2022",
    outDir: process.env.LLAMA_ASYNC_PROXY_WEB_OUT ?? "../src/llama_async_proxy/web",
    emptyOutDir: true,
    modulePreload: { polyfill: false },
    // Fonts and images never become data: URLs, which the content security policy would have to allow.
    assetsInlineLimit: 0,
  },
  server: {
    proxy: Object.fromEntries(["/api", "/v1", "/llamaproxws", "/socket.io"].map((path) => [path, forwarded])),
  },
});
