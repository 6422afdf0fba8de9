// The page for everybody: keyboard, screen reader, phone, language, network.

import assert from "node:assert/strict";
import { test } from "node:test";
import { image, onPage, until, violations } from "./harness.mjs";
import { draw, drawn, FOX, STATES } from "./screenshots.mjs";
import { draws, hangs } from "./stand-in.mjs";

test("axe_finds_no_violation_in_any_state_light_or_dark", { timeout: 240_000 }, async () => {
  /** @type {Record<string, string[]>} */
  const found = {};
  for (const [name, state] of Object.entries(STATES)) {
    const viewport = { width: name.includes("portrait") ? 390 : 1200, height: 900 };
    await onPage({ images: Math.min(state.images ?? 20, 20), before: state.before, context: { locale: state.at ?? "en-GB", viewport } }, async (page, app) => {
      await state.act(page, app);
      await page.waitForTimeout(300);
      for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
        await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
        const list = await violations(page);
        if (list.length) found[`${name}, ${colorScheme}`] = list;
      }
    });
  }
  assert.deepEqual(found, {});
});

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

test("a_generation_is_announced_once_however_often_the_page_asks_for_it", () =>
  onPage({ before: (app) => ((app.script = hangs()), (app.quota.limit = 50)) }, async (page, app) => {
    await page.evaluate(() => {
      const said = (/** @type {any} */ (window).said = /** @type {string[]} */ ([]));
      const region = document.querySelector("#status");
      new MutationObserver(() => said.push(region?.textContent ?? "")).observe(/** @type {Node} */ (region), { childList: true });
    });
    await page.locator("#variations input").nth(2).check({ force: true });
    await draw(page);
    await until("the job is asked for three times", () => app.requests.filter(({ method, path }) => method === "GET" && path.includes("/jobs/")).length > 2);
    const said = await page.evaluate(() => /** @type {any} */ (window).said);
    assert.equal(said.filter((/** @type {string} */ one) => one.startsWith("Drawing")).length, 4);
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

test("a_remembered_theme_and_language_are_there_from_the_first_paint_without_the_other_language", () =>
  onPage({ context: { colorScheme: "light" } }, async (page, app) => {
    await page.click("#theme");
    const before = app.requests.length;
    await page.click("#language");
    await page.getByRole("button", { name: "Zeichnen" }).waitFor();
    assert.deepEqual(app.requests.slice(before).map(({ path }) => path).filter((path) => path.startsWith("/texts.")).sort(), ["/texts.de.js", "/texts.js"]);
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
