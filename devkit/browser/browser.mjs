// Chromium for the tests and the screenshots. `devkit/tests/browser.rs` installs the npm packages of this
// folder's lock, and names them in VISIONARY_BROWSER_MODULES.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";

const modules = process.env.VISIONARY_BROWSER_MODULES;
if (!modules) throw new Error("VISIONARY_BROWSER_MODULES must name the npm packages: see devkit/README.md.");
const require = createRequire(`${modules}/`);
/** @type {import("playwright-core")} */
const playwright = require("playwright-core");
export const axePath = require.resolve("axe-core/axe.min.js");

const CHROMIUM = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/** The path of the browser. */
export function chromium() {
  const path = process.env.CHROMIUM ?? CHROMIUM.find((path) => existsSync(path));
  if (!path) throw new Error("Chromium is missing: install it (Debian: `apt-get install chromium`), or name it in CHROMIUM.");
  return path;
}

export async function launch() {
  const isRoot = process.getuid?.() === 0;
  return playwright.chromium.launch({ executablePath: chromium(), args: ["--disable-gpu", ...(isRoot ? ["--no-sandbox"] : [])] });
}

/** The tile of a drawn image. @param {import("playwright-core").Page} page @param {string} prompt */
export const image = (page, prompt) => page.locator(`.tile:not(.running) img.loaded[alt="${prompt}"]`);

/** Waits for a state of the app. @param {string} what @param {() => unknown} is may be asynchronous */
export async function until(what, is) {
  const end = Date.now() + 10_000;
  while (!(await is())) {
    if (Date.now() > end) assert.fail(`${what}: not within 10 s`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
