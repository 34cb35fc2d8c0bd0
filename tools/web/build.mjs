// Bundles src/main.js into ../../hftrainer/render/assets/viewer.bundle.js: one classic script that needs nothing else.
//
// The first lines of the bundle say which sources it was made from; tests/motion/test_viewer.py compares them with the
// sources that are there, so that a change in src/ without `npm run build` is noticed by people without node.

import { createHash } from "node:crypto";
import { readFile, readdir, writeFile } from "node:fs/promises";
import { build } from "esbuild";

const here = (path) => new URL(path, import.meta.url);

// The digest of everything the bundle depends on: the sources in the order of their names, then the pinned packages.
async function sourceDigest() {
  const digest = createHash("sha256");
  for (const name of (await readdir(here("src"))).sort()) digest.update(await readFile(here(`src/${name}`)));
  digest.update(await readFile(here("package-lock.json")));
  return digest.digest("hex");
}

// Bundlers keep the "@license" lines of sources; the licence itself has to come along too.
const licence = (await readFile(here("node_modules/three/LICENSE"), "utf8")).trim().replace("\u00a9", "(c)");
const notice = `/*!
Made by "npm run build" in tools/web; do not edit.
Sources: sha256 ${await sourceDigest()}

This file contains three.js, which is under the MIT licence:

${licence}
*/`;

const result = await build({
  entryPoints: [here("src/main.js").pathname],
  bundle: true,
  minify: true,
  format: "iife",
  globalName: "hftrainerViewer",
  target: "es2020",
  charset: "ascii", // the page is ASCII whatever the encoding it is served with
  legalComments: "inline",
  banner: { js: notice },
  write: false,
  logLevel: "warning",
});
const bundle = result.outputFiles[0].text;
await writeFile(here("../../hftrainer/render/assets/viewer.bundle.js"), bundle);
console.log(`viewer.bundle.js: ${(bundle.length / 1024).toFixed(0)} KiB`);
