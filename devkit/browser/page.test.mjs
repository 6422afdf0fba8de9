// The page in a real Chromium against the stand-in:  node --test devkit/browser/

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { axePath, launch } from "./browser.mjs";
import { draw, drawn, FOX, STATES } from "./screenshots.mjs";
import { draws, fails, hangs, startStandIn } from "./stand-in.mjs";

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
async function onPage({ images = 60, before: prepare, context: options, mayFail = /^Failed to load resource/ }, act) {
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
async function violations(page) {
  await page.evaluate(axe);
  const { violations: found } = await page.evaluate(() => /** @type {any} */ (window).axe.run({ resultTypes: ["violations"] }));
  return found.map((/** @type {any} */ one) => `${one.id}: ${one.nodes.map((/** @type {any} */ node) => `${node.html} ${node.failureSummary}`).slice(0, 3).join(" | ")}`);
}

/** The tile of a drawn image. @param {Page} page @param {string} prompt */
const image = (page, prompt) => page.locator(`.tile:not(.running) img.loaded[alt="${prompt}"]`);

describe("drawing", () => {
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
});

/** The right edge of each row, from top to bottom. @param {Page} page */
const rightEdges = (page) =>
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

describe("the gallery", () => {
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

  test("expired_links_are_healed_with_one_request_for_the_page", () =>
    onPage({}, async (page, app) => {
      await drawn(page);
      const before = app.requests.length;
      app.window = 2;
      await page.mouse.wheel(0, 4000);
      await page.waitForFunction(() => [...document.querySelectorAll(".tile img.loaded")].at(-1)?.getAttribute("src")?.endsWith("w=2"), undefined, { timeout: 8000 });
      assert.equal(app.requests.slice(before).filter(({ path }) => path.startsWith("/api/getImages")).length, 1);
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
      await page.getByText("The gallery cannot be loaded").first().waitFor();
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
      await page.mouse.wheel(0, 6000);
      await page.locator("#more p").waitFor();
      await page.setViewportSize({ width: 700, height: 900 });
      await page.waitForTimeout(300);
      const rows = await rightEdges(page);
      assert.ok(rows.length > 12, `${rows.length} rows`);
      assert.deepEqual(rows.slice(0, -1).filter((right) => right < Math.max(...rows) - 2), []);
    }));
});

describe("the lightbox", () => {
  test("it_has_an_address_and_back_closes_it_and_the_focus_returns", () =>
    onPage({}, async (page) => {
      await drawn(page);
      await page.locator(".tile a").nth(1).click();
      await page.locator("dialog[open]").waitFor();
      assert.match(page.url(), /#image=/);
      await page.keyboard.press("ArrowRight");
      await page.waitForFunction(() => document.querySelector(".details .prompt")?.textContent?.includes("lighthouse"));
      await page.goBack();
      await page.locator("dialog[open]").waitFor({ state: "detached" });
      const focused = () => page.evaluate(() => document.activeElement?.querySelector("img")?.alt ?? "");
      assert.match(await focused(), /lighthouse/);
      await page.keyboard.press("Enter");
      await page.locator("dialog[open]").waitFor();
      await page.keyboard.press("Escape");
      await page.locator("dialog[open]").waitFor({ state: "detached" });
      assert.match(await focused(), /lighthouse/);
      assert.doesNotMatch(page.url(), /#image=/);
    }));

  test("its_address_opens_the_image_in_a_new_visit", () =>
    onPage({ images: 200 }, async (page, app) => {
      const { id, prompt } = app.images[150];
      await page.goto(`${app.url}/#image=${id}`);
      await page.reload();
      await page.locator(".frame .loaded").waitFor();
      assert.equal(await page.locator(".details .prompt").innerText(), prompt);
      await page.keyboard.press("Escape");
      await page.locator("dialog[open]").waitFor({ state: "detached" });
    }));

  test("an_own_image_is_deleted_and_undone_and_the_focus_goes_to_the_neighbour", () =>
    onPage({ before: (app) => (app.script = draws({ ms: 1 })) }, async (page, app) => {
      await STATES.deleted.act(page, app);
      assert.equal(app.images.length, 60);
      await page.getByRole("button", { name: "Undo" }).click();
      await page.locator(".deleted").waitFor({ state: "detached" });
      assert.equal(app.images.length, 61);
      await page.keyboard.press("Enter");
      await page.locator(".details .danger").click();
      await page.locator(".deleted").waitFor();
      await page.locator(".deleted").waitFor({ state: "detached", timeout: 15_000 });
      assert.match(await page.evaluate(() => document.activeElement?.querySelector("img")?.alt ?? ""), /heron/);
      assert.equal(await page.locator(".tile").count(), await page.locator("main ul.rows > li").count());
    }));

  test("an_image_of_somebody_else_has_no_delete", () =>
    onPage({}, async (page) => {
      await drawn(page);
      await page.locator(".tile a").first().click();
      await page.getByRole("button", { name: "Use again" }).waitFor();
      assert.equal(await page.getByRole("button", { name: "Delete" }).count(), 0);
      await page.getByRole("button", { name: "Use again" }).click();
      await page.waitForFunction(() => /** @type {HTMLTextAreaElement} */ (document.querySelector("#prompt")).value.includes("heron"));
    }));

  test("vary_draws_the_same_prompt_in_the_same_size_once_more", () =>
    onPage({}, async (page, app) => {
      await drawn(page);
      await page.locator(".tile a").nth(1).click();
      await page.locator(".details dd").nth(1).waitFor();
      await page.getByRole("button", { name: "Vary" }).click();
      await until("an image is drawn", () => app.paid === 1);
      const [{ body }] = app.generations.values();
      assert.equal(body.size, "1792x1024");
      assert.match(body.prompt, /red fox/);
    }));
});

describe("everybody", () => {
  for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
    test(`axe_finds_no_violation_in_any_state_${colorScheme}`, { timeout: 120_000 }, async () => {
      /** @type {Record<string, string[]>} */
      const found = {};
      for (const [name, state] of Object.entries(STATES)) {
        await onPage({ images: Math.min(state.images ?? 20, 20), before: state.before, context: { colorScheme, locale: state.at ?? "en-GB", viewport: { width: name.includes("portrait") ? 390 : 1200, height: 900 } } }, async (page, app) => {
          await state.act(page, app);
          await page.waitForTimeout(300);
          const list = await violations(page);
          if (list.length) found[name] = list;
          app.faults.length = 0;
        });
      }
      assert.deepEqual(found, {});
    });
  }

  test("everything_can_be_done_with_the_keyboard_alone", () =>
    onPage({ before: (app) => (app.script = draws({ ms: 1 })) }, async (page) => {
      await drawn(page);
      const press = (/** @type {string[]} */ ...keys) => keys.reduce((before, key) => before.then(() => page.keyboard.press(key)), Promise.resolve());
      /** Tabs until this element has the focus. @param {string} selector */
      const tabTo = async (selector) => {
        for (let at = 0; at < 40; at++) {
          await page.keyboard.press("Tab");
          if (await page.evaluate((wanted) => document.activeElement?.matches(wanted), selector)) return;
        }
        assert.fail(`Tab does not reach ${selector}`);
      };
      await tabTo("#use");
      await press("Enter");
      const prompt = await page.inputValue("#prompt");
      await tabTo("#sizes input");
      await press("ArrowRight");
      await tabTo("#draw");
      await press("Enter");
      await image(page, prompt).waitFor();
      await tabTo(".tile a");
      await press("Enter");
      await page.locator(".details .danger").waitFor();
      await tabTo(".details .danger");
      await press("Enter");
      await page.locator(".deleted button:focus").waitFor();
      await press("Enter");
      await page.locator(".deleted").waitFor({ state: "detached" });
    }));

  test("the_main_states_read_like_this_to_a_screen_reader", () =>
    onPage({ images: 2, before: (app) => (app.script = hangs()) }, async (page) => {
      await drawn(page);
      await page.locator("#sizes input").first().waitFor();
      const composer = await page.locator("#composer").ariaSnapshot();
      for (const line of ['- textbox "Prompt"', '- group "Size"', 'radio "Square, 1024 × 1024" [checked]', '- combobox "Quality"', '- group "Number of images"', 'radio "2 images"', '- button "Draw"', '- group "Style"', 'radio "No style" [checked]']) {
        assert.ok(composer.includes(line), `${line} is missing in\n${composer}`);
      }
      await draw(page);
      await page.getByText("of about").waitFor();
      const gallery = await page.locator("#gallery").ariaSnapshot();
      assert.match(gallery, /^- region "Gallery":\n {2}- list:\n {4}- listitem:\n {6}- group "A red fox/);
      assert.match(gallery, /- link "A heron made of folded maps/);
      assert.match(await page.locator("#status").innerText(), /^Drawing, about 20 seconds: A red fox/);
      assert.equal(await page.locator("[role=status], [aria-live]").count(), 1);
    }));

  test("reduced_motion_means_no_animation_and_no_transition", () =>
    onPage({ before: (app) => (app.script = hangs(2)), context: { reducedMotion: "reduce" } }, async (page) => {
      await drawn(page);
      await draw(page);
      await page.locator(".preview").first().waitFor();
      await page.locator(".tile a").first().click();
      assert.equal(await page.evaluate(() => document.getAnimations().length), 0);
    }));

  test("nothing_is_wider_than_a_phone_and_every_target_is_large", () =>
    onPage({ context: { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true } }, async (page) => {
      await drawn(page);
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), true);
      const small = await page.evaluate(() =>
        [...document.querySelectorAll("button, select, a, .chips label, .shapes label, .variations label")]
          .filter((one) => one.checkVisibility())
          .map((one) => ({ name: one.textContent || one.id, ...one.getBoundingClientRect().toJSON() }))
          .filter(({ width, height }) => width < 40 || height < 39.5)
          .map(({ name, width, height }) => `${name} ${width}×${height}`),
      );
      assert.deepEqual(small, []);
    }));

  test("a_remembered_theme_and_language_are_there_from_the_first_paint", () =>
    onPage({ context: { colorScheme: "light" } }, async (page) => {
      await page.click("#theme");
      await page.click("#language");
      await page.getByRole("button", { name: "Zeichnen" }).waitFor();
      assert.equal(await page.evaluate(() => getComputedStyle(document.documentElement).colorScheme), "dark");
      assert.equal(await page.evaluate(() => document.documentElement.lang), "de");
    }));

  test("a_lost_network_is_said_and_what_is_on_the_page_stays", () =>
    onPage({ before: (app) => (app.script = hangs(1)) }, async (page, app) => {
      await drawn(page);
      await draw(page);
      await page.locator(".preview").waitFor();
      await page.context().setOffline(true);
      app.cut();
      await page.getByText("No network.").first().waitFor();
      await page.getByText("No connection, goes on by itself").waitFor();
      app.generations.forEach((generation) => generation.emit("image", null));
      await page.context().setOffline(false);
      await image(page, FOX).waitFor();
      assert.equal(await page.locator("#notice").innerText(), "");
      assert.equal(app.paid, 1);
    }));

  test("a_signed_in_user_sees_a_name_and_posts_jobs", () =>
    onPage({ before: (app) => ((app.options.signIn = true), (app.account = "ada@example.com")) }, async (page, app) => {
      await page.getByText("ada@example.com").waitFor();
      await draw(page);
      await image(page, FOX).waitFor();
      assert.equal(app.requests.find(({ method }) => method === "POST")?.headers.prefer, "respond-async");
    }));
});

/** Waits for a state of the stand-in. @param {string} what @param {() => unknown} is */
async function until(what, is) {
  const end = Date.now() + 10_000;
  while (!is()) {
    if (Date.now() > end) assert.fail(`${what}: not within 10 s`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
