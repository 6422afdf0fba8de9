// Lighthouse's figures for the page of the whole app, as rows of a Markdown table. `cargo page-figures` starts the app and
// names it in VISIONARY_URL, and Lighthouse's packages in VISIONARY_LIGHTHOUSE_MODULES.

import { pathToFileURL } from "node:url";
import { chromium } from "./browser.mjs";
import { fill, GALLERY } from "./fill.mjs";

const url = process.env.VISIONARY_URL ?? "";
const modules = process.env.VISIONARY_LIGHTHOUSE_MODULES;
const load = (/** @type {string} */ path) => import(pathToFileURL(`${modules}/${path}`).href);
const { default: lighthouse, desktopConfig } = await load("lighthouse/core/index.js");
const { launch } = await load("chrome-launcher/dist/index.js");
/** Runs of each; the one with the median performance is printed. */
const RUNS = 5;

await fill(url, GALLERY);
const isRoot = process.getuid?.() === 0;
const chrome = await launch({ chromePath: chromium(), chromeFlags: ["--headless=new", "--disable-gpu", ...(isRoot ? ["--no-sandbox"] : [])] });
console.log("| Lighthouse | performance | accessibility | best practices | largest paint | blocked | layout shift | transferred |");
console.log("| --- | --- | --- | --- | --- | --- | --- | --- |");
let version = "";
for (const [name, config] of [["phone, slow 4G", undefined], ["desktop", desktopConfig]]) {
  const runs = [];
  for (let run = 0; run < RUNS; run++) {
    const { lhr } = await lighthouse(url, { port: chrome.port, logLevel: "error", onlyCategories: ["performance", "accessibility", "best-practices"] }, config);
    runs.push(lhr);
  }
  runs.sort((one, other) => one.categories.performance.score - other.categories.performance.score);
  const { categories, audits, lighthouseVersion } = runs[RUNS >> 1];
  version = lighthouseVersion;
  const score = (/** @type {string} */ id) => Math.round(categories[id].score * 100);
  const value = (/** @type {string} */ id) => audits[id].numericValue;
  console.log(
    `| ${name} | ${score("performance")} | ${score("accessibility")} | ${score("best-practices")} | ${(value("largest-contentful-paint") / 1000).toFixed(2)} s | ${Math.round(value("total-blocking-time"))} ms | ${value("cumulative-layout-shift").toFixed(3)} | ${Math.round(value("total-byte-weight") / 1024)} KiB |`,
  );
  for (const id of ["performance", "accessibility", "best-practices"]) {
    for (const { id: audit, weight } of categories[id].auditRefs) {
      const { score, title, displayValue } = audits[audit];
      if (weight && score !== null && score < 0.9) console.error(`${name}: ${audit}: ${title} ${displayValue ?? ""} (${score})`);
    }
  }
}
console.log(`Lighthouse ${version}, the median of ${RUNS} runs, ${GALLERY.length} images.`);
await chrome.kill();
