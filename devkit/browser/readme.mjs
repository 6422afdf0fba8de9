// The two images of the README: the page of the whole app while it draws, light and dark. `cargo screenshots` starts the
// app and names it in VISIONARY_URL.
//   node devkit/browser/readme.mjs FOLDER

import { launch } from "./browser.mjs";
import { fill, GALLERY } from "./fill.mjs";

const [folder] = process.argv.slice(2);
const url = process.env.VISIONARY_URL ?? "";
const PROMPT = "A fjord of glass at sunrise, mountains like folded paper";

await fill(url, GALLERY);
const browser = await launch();
const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, locale: "en-GB", colorScheme: "light" });
const page = await context.newPage();
await page.goto(url);
await page.locator(".tile img.loaded").nth(5).waitFor();
await page.locator("#sizes label[title^=Landscape]").click();
await page.fill("#prompt", PROMPT);
await page.click("#draw");
await page.locator(".running .preview").first().waitFor();
for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
  await page.emulateMedia({ colorScheme });
  // The fade of the preview and of the colours ends.
  await page.waitForTimeout(400);
  const path = `${folder}/page-${colorScheme}.jpg`;
  await page.screenshot({ path, type: "jpeg", quality: 85 });
  console.log(path);
}
await browser.close();
