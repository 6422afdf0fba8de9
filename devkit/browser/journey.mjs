// A visit to the whole app in a real Chromium: `devkit/tests/browser.rs` starts the app and names it in
// VISIONARY_URL, and its storage in VISIONARY_BLOBS. The quota is six images, the app draws one at a time, an image takes
// some seconds, the handler is killed while it draws LOST, and storage is away when LATER is drawn. The steps build on
// each other.

import assert from "node:assert/strict";
import { request } from "node:http";
import { after, before, test } from "node:test";
import { image, launch, until } from "./browser.mjs";

const URL_OF_APP = process.env.VISIONARY_URL ?? "";
const BLOBS = process.env.VISIONARY_BLOBS ?? "";
const HOSTILE = "<img src=x onerror=alert(1)> in neon";
const REFUSED = "A forbidden fox";
const LOST = "A heron of folded maps";
const LATER = "A whale above a harbour";
const BUSY = "A night bus full of owls";
/** How long the network is cut. */
const CUT_MS = 10_000;
/** One image is drawn and four wait; these are enough to be told that the app is busy. */
const CROWD = 7;
/** A debug build on a busy machine needs longer for an image than the stand-in. */
const LONG = { timeout: 60_000 };

/** @type {import("playwright-core").Browser} */
let browser;
/** @type {import("playwright-core").Page} */
let page;
/** What a visitor must never meet. @type {string[]} */
const wrong = [];
let suggestion = "";

before(async () => {
  // The quota begins anew at midnight UTC, which must not come in the middle.
  const left = new Date().setUTCHours(24, 0, 0, 0) - Date.now();
  if (left < 300_000) await new Promise((resolve) => setTimeout(resolve, left + 1000));
  browser = await launch();
  const context = await browser.newContext({ viewport: { width: 1200, height: 900 }, locale: "en-GB" });
  page = await context.newPage();
  page.setDefaultTimeout(15_000);
  page.on("pageerror", (error) => wrong.push(String(error.stack)));
  page.on("dialog", (dialog) => (wrong.push(`a dialog: ${dialog.message()}`), dialog.dismiss()));
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && wrong.push(`${message.text()} ${message.location().url}`));
  page.on("request", (request) => {
    const { origin, protocol } = new URL(request.url());
    if (protocol !== "data:" && ![URL_OF_APP, BLOBS].includes(origin)) wrong.push(`a request to ${request.url()}`);
  });
  await page.exposeFunction("violated", (/** @type {string} */ what) => wrong.push(`a violation of the policy: ${what}`));
  await page.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) => /** @type {any} */ (window).violated(`${event.violatedDirective} ${event.blockedURI}`));
  });
});
after(() => browser.close());

const listed = async () => (await (await page.request.get(`${URL_OF_APP}/api/getImages?limit=60`)).json()).imageUrls;
/** Whether the browser has the image, and not only its box. @param {string} selector */
const isLoaded = (selector) => page.locator(selector).first().evaluate((one) => /** @type {HTMLImageElement} */ (one).complete && /** @type {HTMLImageElement} */ (one).naturalWidth > 0);
/** @param {string} prompt */
async function draw(prompt) {
  await page.fill("#prompt", prompt);
  await page.click("#draw");
}
/** What is wrong but for failed requests, which the browser itself reports. */
const otherwiseWrong = () => wrong.splice(0).filter((one) => !one.startsWith("Failed to load resource: "));
/** Asks for images from other addresses, so on the quotas of others, until the app is busy. @returns {Promise<() => void>} ends the requests */
async function crowd() {
  /** @type {import("node:http").ClientRequest[]} */
  const requests = [];
  await new Promise((resolve, reject) => {
    for (let at = 0; at < CROWD; at++) {
      const one = request(`${URL_OF_APP}/api/generateImage`, { method: "POST", localAddress: `127.0.0.${at + 2}` }, ({ statusCode }) => statusCode === 503 && resolve(undefined));
      one.on("error", reject);
      one.end(JSON.stringify({ prompt: `A fox for somebody else, number ${at}` }));
      requests.push(one);
    }
  });
  return () => requests.forEach((one) => (one.on("error", () => {}), one.destroy()));
}
/** @param {RegExp} words */
const quotaSays = (words) => page.locator("#quota").filter({ hasText: words }).waitFor();

test("a_visit", { timeout: 400_000 }, async (visit) => {
  /** A step; the ones after a failed one make no sense. @param {string} name @param {() => Promise<unknown>} act */
  const step = async (name, act) => {
    let failure;
    await visit.test(name, async () => {
      try {
        await act();
        assert.deepEqual(wrong, []);
      } catch (error) {
        failure = error;
        const gallery = await page.locator("#gallery").ariaSnapshot().catch(String);
        throw new Error(`${error instanceof Error ? error.stack : error}\nThe gallery was:\n${gallery}\nWrong was:\n${wrong.join("\n")}`);
      }
    });
    if (failure) throw failure;
  };

  await step("an_empty_gallery_offers_three_ideas_and_every_choice", async () => {
    await page.goto(URL_OF_APP);
    await page.locator(".idea").nth(2).waitFor();
    await page.locator("#sizes input").first().waitFor({ state: "attached" });
    await quotaSays(/6 of 6 left · resets \d\d:\d\d/);
    const labels = await page.locator("#sizes label").evaluateAll((all) => all.map((one) => one.getAttribute("title")));
    assert.deepEqual(labels.map((label) => label?.split(",")[0]), ["Square", "Portrait", "Landscape"]);
  });

  await step("a_used_suggestion_is_drawn_with_previews_in_the_chosen_shape", async () => {
    await page.click("#use");
    suggestion = await page.inputValue("#prompt");
    assert.ok(suggestion.length > 10, suggestion);
    await page.locator("#sizes label[title^=Landscape]").click();
    await page.click("#draw");
    await page.getByText("Drawing", { exact: true }).waitFor();
    await page.locator(".running .preview").first().waitFor(LONG);
    assert.ok(await isLoaded(".running .preview"));
    await image(page, suggestion).waitFor(LONG);
    assert.ok(await isLoaded(".tile img"));
    assert.equal(await page.inputValue("#prompt"), "");
    await quotaSays(/5 of 6 left/);
    const box = await page.locator(".tile .box").first().boundingBox();
    assert.ok(box && box.width > 1.4 * box.height, JSON.stringify(box));
  });

  await step("the_lightbox_has_the_whole_image_and_what_is_known_of_it", async () => {
    await page.locator(".tile a").first().click();
    await page.locator("dialog .frame img.loaded").waitFor();
    await page.getByText("gpt-image").waitFor();
    const details = await page.locator(".details").innerText();
    assert.ok(details.includes(suggestion), details);
    assert.match(details, /gpt-image-2\.5-flare/);
    assert.match(details, /\d{4} × \d{4} · Medium/);
    const width = await page.locator("dialog .frame img.loaded").evaluate((one) => /** @type {HTMLImageElement} */ (one).naturalWidth);
    const size = await page.locator(".details dd", { hasText: "×" }).innerText();
    assert.ok(size.startsWith(String(width)), `${size} and ${width} pixels`);
    await page.goBack();
    await page.locator("dialog[open]").waitFor({ state: "detached" });
  });

  await step("a_deleted_image_comes_back_by_undo", async () => {
    const [{ id }] = await listed();
    await page.locator(".tile a").first().click();
    await page.locator(".details .danger").click();
    await page.locator(".deleted").waitFor();
    assert.deepEqual(await listed(), []);
    await page.getByRole("button", { name: "Undo" }).click();
    await page.locator(".deleted").waitFor({ state: "detached" });
    assert.equal((await listed())[0].id, id);
    await page.reload();
    await image(page, suggestion).waitFor();
    assert.ok(await isLoaded(".tile img"));
  });

  await step("a_thumbnail_replaces_the_large_image_after_a_while", async () => {
    let thumbnail = "";
    await until("the listing has a thumbnail", async () => (thumbnail = (await listed())[0].thumbnailUrl ?? ""));
    await page.reload();
    await image(page, suggestion).waitFor();
    const shown = await page.locator(".tile img").first().evaluate((one) => /** @type {HTMLImageElement} */ (one).currentSrc);
    assert.equal(new URL(shown).pathname, new URL(thumbnail).pathname);
  });

  await step("a_link_that_storage_refuses_is_healed", async () => {
    let refused = 0;
    await page.route(`${BLOBS}/**`, (route) => (refused++ ? route.continue() : route.fulfill({ status: 403 })));
    await page.reload();
    await image(page, suggestion).waitFor();
    assert.ok(refused > 1 && (await isLoaded(".tile img")));
    await page.unroute(`${BLOBS}/**`);
    // The browser itself reports the refusal.
    assert.match(wrong.splice(0).join("\n"), /^Failed to load resource: the server responded with a status of 403[^\n]*$/);
  });

  await step("a_refused_prompt_is_named_and_costs_nothing", async () => {
    await draw(REFUSED);
    await page.locator(".failed").getByText("The image service refuses this prompt.").waitFor(LONG);
    await quotaSays(/5 of 6 left/);
    await page.fill("#prompt", "");
    await page.getByRole("button", { name: "Edit prompt" }).click();
    assert.equal(await page.inputValue("#prompt"), REFUSED);
    await page.fill("#prompt", "");
  });

  await step("a_reload_in_the_middle_pays_once_and_a_hostile_prompt_is_text", async () => {
    await draw(HOSTILE);
    await page.locator(".running .preview").first().waitFor(LONG);
    await page.reload();
    await image(page, HOSTILE).waitFor(LONG);
    assert.ok(await isLoaded(".tile img"));
    await page.locator(".tile a").first().click();
    await page.getByText("gpt-image").waitFor();
    assert.equal(await page.locator(".details .prompt").innerText(), HOSTILE);
    await page.goBack();
    assert.equal(await page.locator('img[src="x"]').count(), 0);
  });

  await step("an_image_that_a_killed_handler_was_drawing_is_called_lost", async () => {
    await draw(LOST);
    // The app waits until the lease of the dead process has ended: a minute and a quarter.
    await page.locator(".failed").getByText("The image may have been drawn, but it got lost.").waitFor({ timeout: 120_000 });
    await quotaSays(/3 of 6 left/);
    await page.getByRole("button", { name: "Dismiss" }).click();
    assert.deepEqual(otherwiseWrong(), []);
  });

  await step("an_image_that_storage_refuses_is_safe_and_appears_by_itself", async () => {
    await draw(LATER);
    await page.locator(".failed").getByText("Drawn and safe; it will appear by itself.").waitFor(LONG);
    await image(page, LATER).waitFor(LONG);
    assert.ok(await isLoaded(".tile img"));
    await quotaSays(/2 of 6 left/);
    assert.deepEqual(otherwiseWrong(), []);
  });

  await step("a_busy_app_is_asked_again_until_it_draws", async () => {
    const leave = await crowd();
    await draw(BUSY);
    await page.getByText("Busy, goes on by itself").waitFor();
    leave();
    await image(page, BUSY).waitFor(LONG);
    await quotaSays(/1 of 6 left/);
    assert.deepEqual(otherwiseWrong(), []);
  });

  await step("a_lost_network_loses_no_image_and_the_used_up_quota_says_when_it_resets", async () => {
    await draw("A lighthouse of books");
    await page.locator(".running .preview").first().waitFor(LONG);
    await page.context().setOffline(true);
    await page.getByText("No network.").first().waitFor();
    await new Promise((resolve) => setTimeout(resolve, CUT_MS));
    await page.context().setOffline(false);
    await image(page, "A lighthouse of books").waitFor(LONG);
    assert.deepEqual(otherwiseWrong(), []);
    await quotaSays(/0 of 6 left · resets \d\d:\d\d/);
    await page.getByRole("button", { name: /^Again at \d\d:\d\d$/ }).waitFor();
    const own = (await listed()).filter((/** @type {any} */ one) => !one.prompt.includes("somebody else"));
    assert.equal(own.length, 5);
    assert.equal(await page.locator(".tile").count(), 5);
  });
});
