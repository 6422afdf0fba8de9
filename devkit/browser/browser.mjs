// Chromium for the tests and the screenshots. The npm packages are in target/devkit/browser; `npm ci`
// there, with this folder's package.json and lock, installs them.

import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const modules = process.env.VISIONARY_BROWSER_MODULES ?? fileURLToPath(new URL("../../target/devkit/browser/node_modules", import.meta.url));
const require = createRequire(`${modules}/`);
/** @type {import("playwright-core")} */
const playwright = require("playwright-core");
export const axePath = require.resolve("axe-core/axe.min.js");

const CHROMIUM = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

export async function launch() {
  const executablePath = process.env.CHROMIUM ?? CHROMIUM.find((path) => existsSync(path));
  if (!executablePath) throw new Error("Chromium is missing: install it (Debian: `apt-get install chromium`), or name it in CHROMIUM.");
  const isRoot = process.getuid?.() === 0;
  return playwright.chromium.launch({ executablePath, args: ["--disable-gpu", ...(isRoot ? ["--no-sandbox"] : [])] });
}
