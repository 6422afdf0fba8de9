// Every state of the page, at three widths, light and dark, and some at a zoom of 200 %:
//   node devkit/browser/screenshots.mjs OUT [NAME…]

import { mkdirSync } from "node:fs";
import { launch } from "./browser.mjs";
import { draws, fails, hangs, PROMPTS, startStandIn } from "./stand-in.mjs";

/** @typedef {Awaited<ReturnType<typeof startStandIn>>} App
 * @typedef {import("playwright-core").Page} Page */

export const FOX = "A red fox asleep in fresh snow, watercolour, soft blue shadows";

/** @param {Page} page */
export const drawn = (page) => page.locator(".tile img.loaded").first().waitFor();
/** @param {Page} page @param {string} [prompt] */
export async function draw(page, prompt = FOX) {
  await page.locator("#sizes input").first().waitFor();
  await page.fill("#prompt", prompt);
  await page.click("#draw");
}

/**
 * Each state: what the app is like before the page is opened, and what the user does.
 * @type {Record<string, {images?: number, before?: (app: App) => void, at?: string, act: (page: Page, app: App) => Promise<unknown>}>}
 */
export const STATES = {
  empty: { images: 0, act: (page) => page.locator(".idea").nth(2).waitFor() },
  gallery: { act: drawn },
  loading: { before: (app) => void (app.latency = 60_000), act: (page) => page.locator("#draw:enabled").waitFor() },
  last: { images: 7, act: (page) => drawn(page).then(() => page.locator("#more p").scrollIntoViewIfNeeded()) },
  sending: { before: (app) => void (app.script = hangs()), act: async (page) => (await drawn(page), await draw(page), await page.getByText("of about").first().waitFor()) },
  preview: {
    before: (app) => void (app.script = hangs(2)),
    act: async (page) => {
      await drawn(page);
      await page.locator("#variations label").nth(2).click();
      await draw(page);
      await page.locator(".preview").nth(2).waitFor();
    },
  },
  "preview-portrait": {
    before: (app) => void (app.script = hangs(1)),
    act: async (page) => {
      await drawn(page);
      await page.locator("#sizes label").nth(1).click();
      await draw(page);
      await page.locator(".preview").waitFor();
    },
  },
  queued: {
    before: (app) => ((app.options.sizes = [...app.options.sizes, { name: "1024x1536", width: 1024, height: 1536 }, { name: "1536x1024", width: 1536, height: 1024 }]), (app.quota.limit = 50), void (app.script = hangs())),
    act: async (page, app) => {
      await drawn(page);
      app.script = async (generation) => void (generation.isJob || generation.accepted());
      await page.locator("#variations label").nth(2).click();
      await draw(page);
      await page.getByRole("button", { name: "Cancel" }).waitFor();
    },
  },
  failed: {
    act: async (page, app) => {
      await drawn(page);
      for (const [code, more] of /** @type {const} */ ([["prompt_rejected", { categories: ["violence"] }], ["provider_answer_lost", {}], ["provider_failed", {}]])) {
        app.script = fails(code, more);
        app.quota.used = 1;
        await draw(page, `${FOX} ${code}`);
        await page.locator(".failed").first().waitFor();
        await page.locator(".running:not(.ended)").waitFor({ state: "detached" });
      }
    },
  },
  "failed-portrait": {
    before: (app) => void (app.script = fails("provider_answer_lost")),
    act: async (page) => {
      await drawn(page);
      await page.locator("#sizes label").nth(1).click();
      await draw(page);
      await page.locator(".failed").waitFor();
    },
  },
  busy: {
    before: (app) => void app.standing.set("/api/generateImage", [503, "busy", { "Retry-After": "30" }]),
    act: async (page) => (await drawn(page), await draw(page), await page.getByText("Busy").first().waitFor()),
  },
  "stored-later": {
    before: (app) => void (app.script = async (generation) => (generation.accepted(), generation.emit("image", { later: true }))),
    act: async (page) => (await drawn(page), await draw(page), await page.locator(".failed").waitFor()),
  },
  "quota-used": {
    before: (app) => void (app.quota.used = 5),
    act: async (page) => (await drawn(page), await page.fill("#prompt", FOX), await page.getByText("Again at").waitFor()),
  },
  offline: { act: async (page) => (await drawn(page), await page.context().setOffline(true), await page.getByText("No network").first().waitFor()) },
  "storage-down": {
    before: (app) => void app.standing.set("/api/getImages", [503, "storage_unavailable"]),
    act: (page) => page.locator("#more button").waitFor(),
  },
  "table-down": {
    before: (app) => ["/api/quota", "/api/generateImage"].forEach((path) => app.standing.set(path, [503, "quota_unavailable"])),
    act: async (page) => (await drawn(page), await draw(page), await page.locator(".failed").waitFor()),
  },
  expired: {
    act: async (page, app) => {
      app.window = 9;
      for (const path of ["/api/getImages", ...app.images.slice(0, 60).map(({ id }) => `/api/images/${id}`)]) app.standing.set(path, [503, "storage_unavailable"]);
      await page.evaluate(() => document.querySelectorAll("img").forEach((image) => (image.src += "0".slice(1) + "&again")));
      await page.getByText("cannot be loaded").first().waitFor();
    },
  },
  newer: {
    act: async (page, app) => {
      await drawn(page);
      app.images.unshift({ ...app.images[0], id: "ffff1", createdAt: new Date().toISOString() }, { ...app.images[1], id: "ffff2", createdAt: new Date().toISOString() });
      await page.evaluate(() => (scrollTo(0, 500), document.dispatchEvent(new Event("visibilitychange"))));
      await page.locator("#newer").waitFor();
    },
  },
  lightbox: { act: async (page) => (await drawn(page), await page.locator(".tile a").nth(3).click(), await page.locator(".details dd").nth(1).waitFor(), await page.locator(".frame .loaded").waitFor()) },
  "lightbox-portrait": { act: async (page) => (await drawn(page), await page.locator(".tile a").nth(4).click(), await page.locator(".details dd").nth(1).waitFor(), await page.locator(".frame .loaded").waitFor()) },
  "lightbox-own": {
    before: (app) => void (app.script = draws({ ms: 1 })),
    act: async (page) => {
      await drawn(page);
      await page.locator("#styles label").nth(3).click();
      await draw(page);
      await page.locator(`.tile:not(.running) img[alt="${FOX}"]`).waitFor();
      await page.locator(".tile a").first().click();
      await page.locator(".details dd").nth(1).waitFor();
    },
  },
  "lightbox-long": {
    before: (app) => void (app.images[0].prompt = "A long prompt of many words about a harbour. ".repeat(90).slice(0, 4000)),
    act: async (page) => (await drawn(page), await page.locator(".tile a").first().click(), await page.locator(".details dd").nth(1).waitFor()),
  },
  "lightbox-rtl": { act: async (page) => (await drawn(page), await page.locator(`.tile a:has(img[alt="${PROMPTS[5]}"])`).first().click(), await page.locator(".details dd").nth(1).waitFor()) },
  deleted: {
    before: (app) => void (app.script = draws({ ms: 1 })),
    act: async (page) => {
      await drawn(page);
      await draw(page);
      await page.locator(`.tile:not(.running) img[alt="${FOX}"]`).waitFor();
      await page.locator(".tile a").first().click();
      await page.locator(".details .danger").click();
      await page.locator(".deleted").waitFor();
    },
  },
  "signed-in": {
    before: (app) => ((app.options.signIn = true), void (app.account = "ada@example.com")),
    act: async (page) => (await drawn(page), await page.getByText("ada@example.com").waitFor()),
  },
  "long-prompt": { act: async (page) => (await drawn(page), await page.fill("#prompt", "A long prompt of many words about a harbour. ".repeat(90))) },
  "rtl-prompt": { act: async (page) => (await drawn(page), await page.fill("#prompt", PROMPTS[5])) },
  german: { at: "de", act: drawn },
};

const ZOOMED = ["gallery", "failed", "lightbox-own", "lightbox-long", "empty", "queued", "long-prompt", "storage-down", "german"];

if (process.argv[1]?.endsWith("screenshots.mjs")) {
  const [out = "target/screenshots", ...names] = process.argv.slice(2);
  mkdirSync(out, { recursive: true });
  const browser = await launch();
  for (const [name, state] of Object.entries(STATES)) {
    if (names.length && !names.includes(name)) continue;
    // 640 stands for a window of 1,280 pixels at a zoom of 200 %.
    for (const width of ZOOMED.includes(name) ? [390, 640, 900, 1440] : [390, 900, 1440]) {
      for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
        const app = await startStandIn({ images: state.images ?? 60 });
        state.before?.(app);
        const context = await browser.newContext({ viewport: { width, height: width === 640 ? 450 : width < 640 ? 844 : 900 }, deviceScaleFactor: width === 640 ? 2 : 1, colorScheme, locale: state.at ?? "en-GB", hasTouch: width < 640, isMobile: width < 640, timezoneId: "Europe/Berlin" });
        const page = await context.newPage();
        page.setDefaultTimeout(5000);
        try {
          await page.goto(app.url);
          await state.act(page, app);
          // Images and transitions come to rest.
          await page.waitForTimeout(400);
        } catch (error) {
          console.error(`${name} at ${width}: ${/** @type {Error} */ (error).message.split("\n")[0]}`);
          process.exitCode = 1;
        }
        await page.screenshot({ path: `${out}/${name}-${width}-${colorScheme}.png` });
        if (app.faults.length) console.error(name, app.faults);
        await context.close();
        await app.stop();
      }
    }
  }
  await browser.close();
}
