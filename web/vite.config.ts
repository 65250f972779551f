import { defineConfig } from "vite";

// Addresses are relative (`base`), because the dashboard may be served below a path. The names of
// the files are fixed, because src/serve/assets.rs compiles them in by name.
export default defineConfig({
  base: "./",
  publicDir: false,
  build: {
    outDir: "dist",
    target: "es2022",
    // Vite's preloading would add an inline script; there is one file a page.
    modulePreload: false,
    assetsInlineLimit: 0,
    rolldownOptions: {
      input: { app: "index.html", login: "login.html" },
      output: {
        entryFileNames: "assets/[name].js",
        chunkFileNames: "assets/[name].js",
        assetFileNames: "assets/[name][extname]",
      },
    },
  },
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  // `npx vite` with a running service: TWINTRACK=http://127.0.0.1:8090.
  server: {
    proxy: { "/api": { target: process.env.TWINTRACK ?? "http://127.0.0.1:8090", ws: true } },
  },
});
