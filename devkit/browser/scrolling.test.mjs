// A gallery of 10,000 images, scrolled from the first to the last, and back and forth. `cargo page-figures` runs it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { onPage } from "./harness.mjs";
import { drawn } from "./screenshots.mjs";

test("ten_thousand_images_are_scrolled_without_long_tasks_with_few_elements_and_without_more_memory", { timeout: 900_000 }, () =>
  onPage({ images: 10_000 }, async (page, app) => {
    const browser = await page.context().newCDPSession(page);
    /** Runs `act`, and returns the longest task of the page's thread in ms of CPU time, which other programs do not lengthen. @param {() => Promise<unknown>} act */
    const longestTask = async (act) => {
      let longest = 0;
      const collect = (/** @type {any} */ { value }) => value.forEach((/** @type {any} */ one) => one.pid === one.tid && /RunTask/.test(one.name) && (longest = Math.max(longest, one.tdur ?? 0)));
      browser.on("Tracing.dataCollected", collect);
      await browser.send("Tracing.start", { transferMode: "ReportEvents", traceConfig: { includedCategories: ["toplevel"], excludedCategories: ["*"] } });
      await act();
      const complete = new Promise((resolve) => browser.once("Tracing.tracingComplete", resolve));
      await browser.send("Tracing.end");
      await complete;
      browser.off("Tracing.dataCollected", collect);
      return Math.round(longest / 1000);
    };
    /** JavaScript's memory in MB after a garbage collection, and the elements of the page. */
    const look = async () => {
      await browser.send("HeapProfiler.collectGarbage");
      const { usedSize } = await browser.send("Runtime.getHeapUsage");
      return page.evaluate((usedSize) => ({ mb: Math.round(usedSize / 1e5) / 10, images: document.images.length, elements: document.querySelectorAll("*").length }), usedSize);
    };
    /** Scrolls by three screens for each frame. @param {1 | -1} direction */
    const scroll = (direction) =>
      page.evaluate(async (direction) => {
        const end = () => (direction > 0 ? Math.ceil(scrollY + innerHeight) >= document.documentElement.scrollHeight : scrollY === 0);
        while (!end()) {
          scrollBy({ top: 3 * direction * innerHeight, behavior: "instant" });
          await new Promise((resolve) => requestAnimationFrame(resolve));
        }
      }, direction);
    /** Scrolls to the end of what is loaded until this number of pages is. @param {number} pages */
    const load = async (pages) => {
      while (app.requests.filter(({ path }) => path.startsWith("/api/getImages")).length < pages && !(await page.locator("#more p").count())) {
        await page.evaluate(async () => {
          for (let frame = 0; frame < 30; frame++) {
            scrollTo(0, document.documentElement.scrollHeight);
            await new Promise((resolve) => requestAnimationFrame(resolve));
          }
        });
      }
    };
    await drawn(page);
    const first = { ...(await look()), longest: 0 };
    const start = Date.now();
    await load(150);
    const loading = await longestTask(() => load(Infinity));
    const took = Date.now() - start;
    const last = { ...(await look()), longest: loading };
    assert.equal(await page.locator("#more p").innerText(), "10,000 images, all there are");
    // The lists near the screen are filled while they are scrolled through.
    const up = { longest: await longestTask(() => scroll(-1)), ...(await look()) };
    const down = { longest: await longestTask(() => scroll(1)), ...(await look()) };
    console.log("| gallery of 10,000 images | `img` elements | elements | longest task, CPU time | JavaScript's memory |");
    console.log("| --- | --- | --- | --- | --- |");
    for (const [name, seen] of /** @type {const} */ ([["first page", first], [`scrolled to the end, in ${Math.round(took / 1000)} s`, last], ["and back to the top", up], ["and to the end again", down]])) {
      console.log(`| ${name} | ${seen.images} | ${seen.elements} | ${seen.longest ? `${seen.longest} ms` : ""} | ${seen.mb} MB |`);
    }
    for (const seen of [last, up, down]) {
      assert.ok(seen.images < 500, `${seen.images} images`);
      assert.ok(seen.elements < 3000, `${seen.elements} elements`);
      assert.ok(seen.longest < 200, `a task of ${seen.longest} ms`);
    }
    // What is known of 10,000 images takes memory; scrolling through them again takes none.
    assert.ok(down.mb < 1.1 * last.mb, `${last.mb} MB became ${down.mb} MB`);
    await page.evaluate(() => scrollTo(0, document.documentElement.scrollHeight / 2));
    await page.waitForFunction(() => [...document.querySelectorAll(".tile img.loaded")].some((one) => Math.abs(one.getBoundingClientRect().top) < 500));
  }));
