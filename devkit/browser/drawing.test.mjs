// From the prompt to the image, and what goes wrong on the way.

import assert from "node:assert/strict";
import { test } from "node:test";
import { image, onPage, until } from "./harness.mjs";
import { draw, drawn, FOX, STATES } from "./screenshots.mjs";
import { draws, fails, hangs } from "./stand-in.mjs";

test("a_drawn_image_takes_the_place_of_its_previews_and_the_box_is_emptied", () =>
  onPage({}, async (page, app) => {
    app.script = draws({ ms: 150 });
    await drawn(page);
    await page.locator("#sizes input").nth(2).check({ force: true });
    await draw(page);
    const tile = page.locator(".running .box");
    const box = await tile.boundingBox();
    assert.ok(box && Math.abs(box.width / box.height - 1.75) < 0.01, "the tile has the shape of the image at once");
    await page.locator(".preview").first().waitFor();
    await image(page, FOX).waitFor();
    assert.deepEqual(await page.locator(".tile .box").first().boundingBox(), box);
    assert.equal(await page.inputValue("#prompt"), "");
    assert.equal(app.paid, 1);
    assert.match(await page.locator("#status").innerText(), /^Ready: A red fox/);
  }));

test("a_suggestion_is_the_placeholder_and_becomes_the_prompt", () =>
  onPage({}, async (page) => {
    await page.click("#use");
    assert.match(await page.inputValue("#prompt"), /grandmother/);
    await page.fill("#prompt", "");
    await page.click("#another");
    await page.waitForFunction(() => !(/** @type {HTMLTextAreaElement} */ (document.querySelector("#prompt")).placeholder.includes("grandmother")));
  }));

test("a_double_click_on_draw_pays_for_one_image", () =>
  onPage({ before: (app) => (app.script = hangs()) }, async (page, app) => {
    await page.locator("#sizes input").first().waitFor();
    await page.fill("#prompt", FOX);
    await page.dblclick("#draw");
    await page.getByText("of about").waitFor();
    assert.equal(app.paid, 1);
  }));

test("a_page_has_at_most_three_streams_and_draws_the_others_as_jobs", () =>
  onPage({ before: (app) => ((app.script = hangs(1)), (app.quota.limit = 50)) }, async (page, app) => {
    await page.locator("#variations input").nth(2).check({ force: true });
    await draw(page);
    await page.locator(".running").nth(3).waitFor();
    await draw(page, "Another fox");
    await page.locator(".running").nth(7).waitFor();
    await page.waitForFunction(() => document.querySelectorAll(".preview").length >= 3);
    assert.equal(app.mostStreams, 3);
    await until("eight images are accepted", () => app.paid === 8);
    app.generations.forEach((generation) => generation.emit("image", null));
    await page.waitForFunction(() => !document.querySelector(".running"));
  }));

test("a_job_that_waits_can_be_cancelled", () =>
  onPage({ before: (app) => ((app.script = hangs()), (app.quota.limit = 50)) }, async (page, app) => {
    await page.locator("#variations input").nth(2).check({ force: true });
    app.script = async (generation) => void (generation.isJob || generation.accepted());
    await draw(page);
    await page.getByRole("button", { name: "Cancel" }).click();
    await page.waitForFunction(() => document.querySelectorAll(".running").length === 3);
    assert.equal([...app.generations.values()].filter(({ cancelled }) => cancelled).length, 1);
  }));

test("a_reload_in_the_middle_goes_on_with_the_same_generation", () =>
  onPage({ before: (app) => (app.script = hangs(1)) }, async (page, app) => {
    await draw(page);
    await page.locator(".preview").waitFor();
    await page.reload();
    await page.locator(".preview").waitFor();
    await drawn(page);
    app.generations.forEach((generation) => generation.emit("image", null));
    await image(page, FOX).waitFor();
    assert.equal(app.paid, 1);
    await page.reload();
    await image(page, FOX).waitFor();
    assert.equal(await page.locator(".running").count(), 0);
  }));

test("a_stream_that_breaks_off_is_continued_at_its_address", () =>
  onPage({ before: (app) => (app.script = hangs(1)) }, async (page, app) => {
    await draw(page);
    await page.locator(".preview").waitFor();
    app.cut();
    await until("the page is back", () => app.requests.some(({ method, path }) => method === "GET" && path.includes("/jobs/")));
    app.generations.forEach((generation) => generation.emit("image", null));
    await image(page, FOX).waitFor();
    assert.equal(app.paid, 1);
  }));

test("a_request_without_an_answer_is_sent_again_with_the_same_key", () =>
  onPage({ before: (app) => app.next.set("/api/generateImage", [null, [503, "busy", { "Retry-After": "1" }], [502, ""]]) }, async (page, app) => {
    await draw(page);
    await image(page, FOX).waitFor({ timeout: 15_000 });
    const keys = new Set(app.requests.filter(({ method }) => method === "POST").map(({ headers }) => headers["idempotency-key"]));
    assert.equal(keys.size, 1);
    assert.equal(app.paid, 1);
  }));

test("a_streamed_post_that_the_platform_refuses_becomes_a_job_with_the_same_key", () =>
  onPage({ before: (app) => app.next.set("/api/generateImage", [[500, ""]]) }, async (page, app) => {
    await draw(page);
    await image(page, FOX).waitFor();
    const posts = app.requests.filter(({ method }) => method === "POST");
    assert.equal(posts[0].headers["idempotency-key"], posts[1].headers["idempotency-key"]);
    assert.equal(posts[1].headers.prefer, "respond-async");
  }));

test("a_refused_prompt_is_named_and_goes_back_into_the_box", () =>
  onPage({ before: (app) => (app.script = fails("prompt_rejected", { categories: ["violence"] })) }, async (page) => {
    await draw(page);
    await page.getByText("The image service refuses this prompt. It names: violence.").first().waitFor();
    await page.fill("#prompt", "something else");
    await page.getByRole("button", { name: "Edit prompt" }).click();
    assert.equal(await page.inputValue("#prompt"), FOX);
    assert.equal(await page.locator(".running").count(), 0);
  }));

test("a_failed_image_can_be_tried_again_and_gets_another_key", () =>
  onPage({ before: (app) => (app.script = fails("provider_failed")) }, async (page, app) => {
    await draw(page);
    const again = page.getByRole("button", { name: "Try again" });
    await again.waitFor();
    assert.match(await page.locator("#notice").innerText(), /image service has a fault/);
    app.script = draws({ ms: 1 });
    await again.click();
    await image(page, FOX).waitFor();
    assert.equal(await page.locator("#notice").innerText(), "");
  }));

test("a_used_up_quota_says_when_one_can_draw_again_and_keeps_the_prompt", () =>
  onPage({ before: (app) => (app.quota.used = 4), context: { timezoneId: "Asia/Kolkata" } }, async (page, app) => {
    app.script = draws({ ms: 1 });
    await draw(page);
    await image(page, FOX).waitFor();
    await page.getByRole("button", { name: "Again at 05:30" }).waitFor();
    await page.fill("#prompt", "One more fox");
    await page.locator("#draw").click({ force: true });
    assert.equal(app.paid, 1);
    await page.reload();
    assert.equal(await page.inputValue("#prompt"), "One more fox");
  }));

test("an_image_that_is_stored_later_appears_by_itself", () =>
  onPage({ before: (app) => (app.script = STATES["stored-later"].before?.(app)) }, async (page, app) => {
    STATES["stored-later"].before?.(app);
    await draw(page);
    await page.getByText("Drawn and safe").first().waitFor();
    const { body } = [...app.generations.values()][0];
    const name = [...app.generations.values()][0].events.at(-1)?.[1].name;
    app.images.unshift({ ...app.images[0], id: "ffff", name, prompt: body.prompt, createdAt: new Date().toISOString() });
    await image(page, FOX).waitFor({ timeout: 15_000 });
  }));

test("a_prompt_that_is_markup_is_text_everywhere", () =>
  onPage({ before: (app) => (app.script = hangs()) }, async (page, app) => {
    const markup = "<img src=x onerror=alert(1)><script>alert(2)</script>";
    app.suggestions = [markup];
    app.images[0].prompt = markup;
    page.on("dialog", () => assert.fail("a script of the prompt ran"));
    await page.reload();
    await drawn(page);
    await draw(page, markup);
    await page.getByText("of about").waitFor();
    await page.locator(".tile a").first().click();
    await page.locator(".details dd").first().waitFor();
    assert.equal(await page.locator("[onerror], main script").count(), 0);
    assert.equal(await page.locator(".details .prompt").innerText(), markup);
  }));
