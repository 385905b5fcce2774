// Lays out dist/: our page beside MapLibre's own ES modules. No bundler, no download.
import { cpSync, mkdirSync, rmSync, writeFileSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const maplibre = join(here, "node_modules", "maplibre-gl");
const dist = join(here, "dist");

rmSync(dist, { recursive: true, force: true });
mkdirSync(join(dist, "maplibre"), { recursive: true });
cpSync(join(here, "src"), dist, { recursive: true });
for (const file of ["maplibre-gl.mjs", "maplibre-gl-shared.mjs", "maplibre-gl-worker.mjs", "maplibre-gl.css"]) {
  cpSync(join(maplibre, "dist", file), join(dist, "maplibre", file));
}
cpSync(join(maplibre, "LICENSE.txt"), join(dist, "maplibre", "LICENSE.txt"));
const version = JSON.parse(readFileSync(join(maplibre, "package.json"), "utf8")).version;
writeFileSync(join(dist, "version.json"), JSON.stringify({ maplibre: version }) + "\n");
