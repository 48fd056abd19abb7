import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// In development the pages come from Vite and the API from a platform that runs: PENSTOCK_URL.
const platform = process.env.PENSTOCK_URL ?? "http://127.0.0.1:8799";

export default defineConfig({
  plugins: [react()],
  base: "/console/",
  build: { outDir: "dist", assetsInlineLimit: 0, modulePreload: { polyfill: false }, sourcemap: false },
  server: { host: "127.0.0.1", proxy: { "/v1": platform } },
});
