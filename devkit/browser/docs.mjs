// The page of the contract, in the whole app. `devkit/tests/browser.rs` starts it and sets VISIONARY_URL.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { axePath, launch } from "./browser.mjs";

const url = process.env.VISIONARY_URL ?? "";

test("the_page_of_the_contract_shows_every_operation_and_every_shape_and_asks_nobody_else", async () => {
  const contract = await (await fetch(`${url}/api/openapi.json`)).json();
  const items = /** @type {any[]} */ (Object.values(contract.paths));
  const operations = items.flatMap((item) => Object.values(item)).filter((/** @type {any} */ operation) => operation.operationId);
  const browser = await launch();
  try {
    const context = await browser.newContext({ permissions: ["clipboard-read", "clipboard-write"] });
    const page = await context.newPage();
    /** @type {string[]} */
    const wrong = [];
    page.on("pageerror", (error) => wrong.push(String(error)));
    page.on("console", (message) => message.type() === "error" && wrong.push(message.text()));
    page.on("request", (request) => request.url().startsWith(url) || wrong.push(request.url()));

    await page.goto(`${url}/docs#getQuota`);
    await page.locator('main[aria-busy="false"]').waitFor();

    const ids = await page.locator("main h3").evaluateAll((headings) => headings.map((heading) => heading.id));
    const wanted = [...operations.map((/** @type {any} */ operation) => operation.operationId), ...Object.keys(contract.components.schemas)];
    assert.deepEqual(ids.toSorted(), wanted.toSorted());
    const lost = await page.evaluate(() => [...document.querySelectorAll("a[href^='#']")].map((link) => link.getAttribute("href") ?? "").filter((href) => !document.getElementById(href.slice(1))));
    assert.deepEqual(lost, []);
    assert.ok(await page.evaluate(() => scrollY > 100), "the page scrolls to the place in its address");

    await page.locator("section", { has: page.locator("#deleteImage") }).getByRole("button", { name: "Copy" }).click();
    await page.getByText("The command is copied.").waitFor();
    const { id, token } = { id: "8204332597867-be9b71e9cf68ee5020710278c8e29be2", token: "99d595556942f04d8b91ed0f85139d644de705808bae94ccf6f332d0a581017d" };
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), `curl -X DELETE '${url}/api/images/${id}' -H 'X-Delete-Token: ${token}'`);

    await page.evaluate(() => document.querySelectorAll("details").forEach((details) => (details.open = true)));
    await page.evaluate(readFileSync(axePath, "utf8"));
    for (const [colorScheme, width] of /** @type {const} */ ([["light", 1200], ["dark", 1200], ["light", 390]])) {
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      await page.setViewportSize({ width, height: 900 });
      const { violations } = await page.evaluate(() => /** @type {any} */ (window).axe.run({ resultTypes: ["violations"] }));
      assert.deepEqual(violations.map((/** @type {any} */ one) => `${one.id}: ${one.nodes[0].html}`), [], `${colorScheme} ${width}`);
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `it scrolls sideways at ${width}`);
    }
    assert.deepEqual(wrong, []);
  } finally {
    await browser.close();
  }
});
