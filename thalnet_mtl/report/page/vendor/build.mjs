// Make plot.js again: npm ci && npm run build
import { readFileSync } from "node:fs";
import { build } from "esbuild";

const options = {
  entryPoints: ["plot.entry.js"],
  bundle: true,
  minify: true,
  format: "iife",
  globalName: "Plot",
  charset: "ascii",
  legalComments: "none",
  metafile: true,
};
const { metafile } = await build({ ...options, write: false });
const packages = new Map(); // by license text, the packages that have it
for (const [path, { bytesInOutput }] of Object.entries(Object.values(metafile.outputs)[0].inputs)) {
  const folder = path.match(/^node_modules\/(@[^/]+\/)?[^/]+/)?.[0];
  if (!folder || !bytesInOutput) continue;
  const { name, version } = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
  const license = readFileSync(`${folder}/LICENSE`, "utf8").trim();
  if (!packages.has(license)) packages.set(license, new Set());
  packages.get(license).add(`${name} ${version}`);
}
const notices = [...packages].map(([license, names]) => `${[...names].join(", ")}\n\n${license}`);
const banner = `/*! Parts of Observable Plot. Made by: npm ci && npm run build\n\n${notices.join("\n\n")}\n*/`;
await build({ ...options, banner: { js: banner }, outfile: "plot.js" });
