// The rows of images.

import assert from "node:assert/strict";
import { test } from "node:test";
import { image, onPage, rightEdges } from "./harness.mjs";
import { draw, drawn, FOX, STATES } from "./screenshots.mjs";
import { draws, hangs } from "./stand-in.mjs";

test("nothing_moves_from_the_empty_page_to_sixty_images_with_previews", () =>
  onPage({ before: (app) => ((app.script = hangs(1)), (app.latency = 60)) }, async (page, app) => {
    await drawn(page);
    app.latency = 0;
    await draw(page);
    await page.locator(".preview").waitFor();
    await page.waitForTimeout(700);
    app.generations.forEach((generation) => generation.emit("image", null));
    await image(page, FOX).waitFor();
    await page.waitForTimeout(600);
    assert.deepEqual(await page.evaluate(() => /** @type {any} */ (window).shifted ?? []), []);
  }));

test("every_row_is_full_and_no_image_is_cropped", () =>
  onPage({ images: 200 }, async (page) => {
    await drawn(page);
    for (let at = 0; at < 12; at++) {
      await page.mouse.wheel(0, 1500);
      await page.waitForTimeout(100);
    }
    const rows = await rightEdges(page);
    assert.ok(rows.length > 12, `${rows.length} rows`);
    assert.deepEqual(rows.slice(0, -1).filter((right) => right < Math.max(...rows) - 2), []);
  }));

test("expired_links_are_healed_with_one_request_for_the_page", () =>
  onPage({}, async (page, app) => {
    await drawn(page);
    const before = app.requests.length;
    app.window = 2;
    await page.mouse.wheel(0, 4000);
    await page.waitForFunction(() => [...document.querySelectorAll(".tile img.loaded")].at(-1)?.getAttribute("src")?.endsWith("w=2"), undefined, { timeout: 8000 });
    assert.equal(app.requests.slice(before).filter(({ path }) => path.startsWith("/api/getImages")).length, 1);
  }));

test("images_that_failed_without_a_network_are_loaded_when_it_is_back", () =>
  onPage({}, async (page) => {
    await drawn(page);
    await page.context().setOffline(true);
    await page.evaluate(() => document.querySelectorAll("img").forEach((image) => (image.src += "&again")));
    await page.getByText("This image cannot be loaded.").first().waitFor();
    await page.context().setOffline(false);
    await page.waitForFunction(() => !document.querySelector(".failed") && document.images[0].complete && document.images[0].naturalWidth > 0);
  }));

test("new_images_of_others_wait_behind_a_button", () =>
  onPage({}, async (page, app) => {
    await STATES.newer.act(page, app);
    const top = await page.evaluate(() => scrollY);
    assert.equal(await page.locator("#newer").innerText(), "2 new");
    assert.equal(await page.evaluate(() => scrollY), top);
    await page.click("#newer");
    assert.equal(await page.locator(".tile").first().getAttribute("data-id"), "ffff1");
    assert.equal(await page.locator("#newer").isVisible(), false);
  }));

test("an_empty_gallery_offers_three_ideas_and_a_click_fills_the_box", () =>
  onPage({ images: 0 }, async (page) => {
    await page.locator(".idea").nth(2).waitFor();
    await page.locator(".idea").nth(1).click();
    const prompt = await page.inputValue("#prompt");
    assert.ok(prompt.length > 20);
    await page.click("#draw");
    await image(page, prompt).waitFor();
    assert.equal(await page.locator(".empty").count(), 0);
  }));

test("a_gallery_that_cannot_be_loaded_is_not_shown_as_an_empty_one", () =>
  onPage({ before: (app) => app.standing.set("/api/getImages", [503, "storage_unavailable"]) }, async (page, app) => {
    await page.getByText("The images cannot be loaded").first().waitFor();
    assert.match(await page.locator("#notice").innerText(), /storage cannot be reached/);
    assert.equal(await page.locator(".empty").count(), 0);
    app.standing.clear();
    await page.getByRole("button", { name: "Try again" }).click();
    await drawn(page);
    assert.equal(await page.locator("#notice").innerText(), "");
  }));

test("another_width_lays_all_rows_out_anew_without_gaps", () =>
  onPage({ images: 120 }, async (page) => {
    await drawn(page);
    await page.evaluate(() => scrollTo(0, document.documentElement.scrollHeight));
    await page.locator("#more p").waitFor();
    const atTop = () => page.evaluate(() => {
      const first = [...document.querySelectorAll("[data-id]")].find((one) => one.getBoundingClientRect().bottom > 100);
      return { id: first?.getAttribute("data-id"), y: first?.getBoundingClientRect().y ?? 0 };
    });
    for (const from of [1200, 1500, 1800]) {
      await page.setViewportSize({ width: 1200, height: 900 });
      await page.evaluate((from) => scrollTo(0, from), from);
      await page.waitForTimeout(300);
      const before = await atTop();
      await page.setViewportSize({ width: 700, height: 900 });
      await page.waitForTimeout(300);
      const box = await page.locator(`[data-id="${before.id}"]`).boundingBox();
      assert.ok(box && Math.abs(box.y - before.y) < 2, `the first tile moves from ${before.y} to ${box?.y}`);
    }
    const rows = await rightEdges(page);
    assert.ok(rows.length > 12, `${rows.length} rows`);
    assert.deepEqual(rows.slice(0, -1).filter((right) => right < Math.max(...rows) - 2), []);
  }));
