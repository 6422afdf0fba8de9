// Opens the page in Chromium against the stand-in, for the tests.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before } from "node:test";
import { axePath, launch } from "./browser.mjs";
import { startStandIn } from "./stand-in.mjs";

export { image, until } from "./browser.mjs";

/** @typedef {import("playwright-core").Page} Page */

/** @type {import("playwright-core").Browser} */
let browser;
before(async () => void (browser = await launch()));
after(() => browser.close());

const axe = readFileSync(axePath, "utf8");

/**
 * Opens the page and checks, after `act`, what holds in every state: no fault seen by the stand-in, no
 * error and no violation of the content security policy in the browser, no request to a third party.
 * @param {{images?: number, before?: (app: any) => void, context?: import("playwright-core").BrowserContextOptions, mayFail?: RegExp}} settings
 * @param {(page: Page, app: Awaited<ReturnType<typeof startStandIn>>) => Promise<unknown>} act
 */
export async function onPage({ images = 60, before: prepare, context: options, mayFail = /^Failed to load resource/ }, act) {
  const app = await startStandIn({ images });
  prepare?.(app);
  const context = await browser.newContext({ viewport: { width: 1200, height: 900 }, locale: "en-GB", ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(8000);
  /** @type {string[]} */
  const wrong = [];
  page.on("pageerror", (error) => wrong.push(String(error.stack)));
  page.on("console", (message) => message.type() === "error" && !mayFail.test(message.text()) && wrong.push(message.text()));
  page.on("request", (request) => {
    const { origin, protocol } = new URL(request.url());
    if (protocol !== "data:" && ![app.url, app.blobs].includes(origin)) wrong.push(`a request to ${request.url()}`);
  });
  await page.addInitScript(() => {
    const seen = /** @type {any} */ (window);
    seen.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => seen.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
    seen.shift = 0;
    new PerformanceObserver((list) => {
      for (const entry of /** @type {any[]} */ (list.getEntries())) if (!entry.hadRecentInput) {
        seen.shift += entry.value;
        seen.shifted = [...(seen.shifted ?? []), ...entry.sources.map((/** @type {any} */ one) => `${one.node?.nodeName} ${one.node?.id} ${one.node?.className} ${JSON.stringify(one.previousRect)} to ${JSON.stringify(one.currentRect)}`)];
      }
    }).observe({ type: "layout-shift", buffered: true });
    seen.longest = 0;
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) seen.longest = Math.max(seen.longest, entry.duration);
    }).observe({ type: "longtask", buffered: true });
  });
  try {
    await page.goto(app.url);
    await act(page, app);
    assert.deepEqual(await page.evaluate(() => /** @type {any} */ (window).violations), []);
    assert.deepEqual(wrong, []);
    assert.deepEqual(app.faults, []);
  } finally {
    await context.close();
    await app.stop();
  }
}

/** @param {Page} page */
export async function violations(page) {
  await page.evaluate(axe);
  const { violations: found } = await page.evaluate(() => /** @type {any} */ (window).axe.run({ resultTypes: ["violations"] }));
  return found.map((/** @type {any} */ one) => `${one.id}: ${one.nodes.map((/** @type {any} */ node) => `${node.html} ${node.failureSummary}`).slice(0, 3).join(" | ")}`);
}

/** The right edge of each row, from top to bottom. @param {Page} page */
export const rightEdges = (page) =>
  page.evaluate(() => {
    /** @type {Map<number, number>} */
    const edges = new Map();
    for (const box of document.querySelectorAll(".tile .box")) {
      const { top, right } = box.getBoundingClientRect();
      const key = Math.round(top + scrollY);
      edges.set(key, Math.max(edges.get(key) ?? 0, Math.round(right)));
    }
    return [...edges.entries()].sort(([one], [other]) => one - other).map(([, right]) => right);
  });
