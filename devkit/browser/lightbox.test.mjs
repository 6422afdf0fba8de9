// One image, its details, and what can be done with it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { onPage, until } from "./harness.mjs";
import { drawn, STATES } from "./screenshots.mjs";
import { draws } from "./stand-in.mjs";

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

test("an_own_image_that_is_opened_by_its_address_can_be_deleted_and_undone", () =>
  onPage({ images: 200 }, async (page, app) => {
    const { id } = app.images[150];
    await page.evaluate((id) => localStorage.setItem("visionary.deleteTokens", JSON.stringify([[id, `token-${id}`]])), id);
    await page.goto(`${app.url}/#image=${id}`);
    await page.reload();
    await page.locator(".details .danger").click();
    await page.getByRole("button", { name: "Undo" }).click();
    await page.locator(".deleted").waitFor({ state: "detached" });
    assert.equal(app.images.length, 200);
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
