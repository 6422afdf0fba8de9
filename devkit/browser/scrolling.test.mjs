// A gallery of 10,000 images, scrolled from the first to the last.

import assert from "node:assert/strict";
import { test } from "node:test";
import { onPage } from "./harness.mjs";
import { drawn } from "./screenshots.mjs";

test("ten_thousand_images_are_scrolled_without_long_tasks_and_with_few_elements", { timeout: 240_000 }, () =>
  onPage({ images: 10_000 }, async (page) => {
    await drawn(page);
    await page.evaluate(() => (/** @type {any} */ (window).longest = 0));
    const start = Date.now();
    await page.evaluate(async () => {
      while (!document.querySelector("#more p")) {
        scrollTo(0, document.documentElement.scrollHeight);
        await new Promise((resolve) => requestAnimationFrame(resolve));
      }
    });
    const seen = await page.evaluate(() => ({ images: document.images.length, elements: document.querySelectorAll("*").length, longest: /** @type {any} */ (window).longest, said: document.querySelector("#more p")?.textContent }));
    console.log(`10,000 images in ${Date.now() - start} ms`, seen);
    assert.equal(seen.said, "10,000 images, all there are");
    assert.ok(seen.images < 500, `${seen.images} images`);
    assert.ok(seen.elements < 3000, `${seen.elements} elements`);
    assert.ok(seen.longest < 200, `a task of ${seen.longest} ms`);
    await page.evaluate(() => scrollTo(0, document.documentElement.scrollHeight / 2));
    await page.waitForFunction(() => [...document.querySelectorAll(".tile img.loaded")].some((one) => Math.abs(one.getBoundingClientRect().top) < 500));
  }));
