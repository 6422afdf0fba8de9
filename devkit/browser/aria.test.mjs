// What a screen reader finds in the main states of the page. A change of words or of structure changes a snapshot here.

import assert from "node:assert/strict";
import { test } from "node:test";
import { onPage } from "./harness.mjs";
import { STATES } from "./screenshots.mjs";

/** What depends on the clock, on ports and on random ids. @param {string} snapshot */
const masked = (snapshot) => snapshot.replace(/\b\d\d:\d\d\b/g, "HH:MM").replace(/time: .*/g, "time: WHEN").replace(/\d+ of about/g, "N of about").replace(/\/url: .*/g, "/url: LINK");

/**
 * @param {string} name of the state
 * @param {number} images
 * @param {string} selector of what is read
 * @param {string} wanted
 */
const reads = (name, images, selector, wanted) =>
  onPage({ images, before: STATES[name].before, context: { timezoneId: "UTC" } }, async (page, app) => {
    await page.locator("#sizes input").first().waitFor({ state: "attached" });
    await STATES[name].act(page, app);
    assert.equal(masked(await page.locator(selector).ariaSnapshot()), wanted.trim());
  });

test("the_empty_page_reads_like_this", () => reads("empty", 0, "body", `
- banner:
  - heading "Visionary" [level=1]
  - paragraph: 4 of 5 left · resets HH:MM
  - button "Dark or light"
  - button "DE"
  - paragraph
- status
- main:
  - text: Prompt
  - textbox "Prompt":
    - /placeholder: A grandmother laughing in a sunlit kitchen full of flour dust, photo-realistic, shallow depth of field
  - paragraph: Ctrl + Enter draws
  - button "Use it"
  - button "Another"
  - group "Size":
    - text: Size
    - radio "Square, 1024 × 1024" [checked]
    - radio "Portrait, 1024 × 1792"
    - radio "Landscape, 1792 × 1024"
  - text: Quality
  - combobox "Quality":
    - option "Standard" [selected]
    - option "HD"
  - text: Prompt is sent
  - combobox "Prompt is sent":
    - option "As typed" [selected]
    - option "With a style"
    - option "Rewritten"
  - group "Number of images":
    - text: Number of images
    - radio "1 image" [checked]
    - text: "1"
    - radio "2 images"
    - text: "2"
    - radio "4 images"
    - text: "4"
  - button "Draw"
  - group "Style":
    - text: Style
    - radio "No style" [checked]
    - text: No style
    - radio "Cinematic"
    - text: Cinematic
    - radio "Oil painting"
    - text: Oil painting
    - radio "Watercolor"
    - text: Watercolor
    - radio "Photo-realistic"
    - text: Photo-realistic
    - radio "Abstract"
    - text: Abstract
    - radio "Modern"
    - text: Modern
    - radio "Black and white"
    - text: Black and white
    - radio "Anime"
    - text: Anime
    - radio "Pixel art"
    - text: Pixel art
    - radio "Isometric"
    - text: Isometric
    - radio "Line art"
    - text: Line art
    - radio "Low poly"
    - text: Low poly
    - radio "Fantasy"
    - text: Fantasy
  - region "Gallery":
    - heading "Draw the first image" [level=2]
    - paragraph: Take one of these, or write your own.
    - list:
      - listitem:
        - button "A city of glass bridges between enormous trees, concept art, golden hour, mist in the depths"
      - listitem:
        - button "A whale drifting above a sleeping harbour town, dreamlike oil painting, moonlight and silver clouds"
      - listitem:
        - button "Two herons made of folded maps, modern art, clean shapes, pale background, gentle sunlight"
  - paragraph`));
test("a_gallery_reads_like_this", () => reads("gallery", 2, "#gallery", `
- region "Gallery":
  - list:
    - listitem:
      - link "A heron made of folded maps stands in a misty river at dawn, watercolour":
        - /url: LINK
        - img "A heron made of folded maps stands in a misty river at dawn, watercolour"
    - listitem:
      - link "A red fox asleep in a hollow of fresh snow, soft blue shadows, early morning calm":
        - /url: LINK
        - img "A red fox asleep in a hollow of fresh snow, soft blue shadows, early morning calm"`));
test("a_tile_that_draws_reads_like_this", () => reads("sending", 1, "#gallery", `
- region "Gallery":
  - list:
    - listitem:
      - group "A red fox asleep in fresh snow, watercolour, soft blue shadows":
        - paragraph: Drawing N of about 20 s
    - listitem:
      - link "A heron made of folded maps stands in a misty river at dawn, watercolour":
        - /url: LINK
        - img "A heron made of folded maps stands in a misty river at dawn, watercolour"`));
test("a_job_that_waits_reads_like_this", () => reads("queued", 1, "#gallery", `
- region "Gallery":
  - list:
    - listitem:
      - group "A red fox asleep in fresh snow, watercolour, soft blue shadows":
        - paragraph: Waiting its turn N of about 20 s
        - button "Cancel"
    - listitem:
      - group "A red fox asleep in fresh snow, watercolour, soft blue shadows":
        - paragraph: Waiting its turn N of about 20 s
    - listitem:
      - group "A red fox asleep in fresh snow, watercolour, soft blue shadows":
        - paragraph: Waiting its turn N of about 20 s
    - listitem:
      - group "A red fox asleep in fresh snow, watercolour, soft blue shadows":
        - paragraph: Waiting its turn N of about 20 s
    - listitem:
      - link "A heron made of folded maps stands in a misty river at dawn, watercolour":
        - /url: LINK
        - img "A heron made of folded maps stands in a misty river at dawn, watercolour"`));
test("tiles_that_failed_read_like_this", () => reads("failed", 1, "#gallery", `
- region "Gallery":
  - list:
    - listitem:
      - group "A red fox asleep in fresh snow, watercolour, soft blue shadows provider_failed":
        - paragraph: The image service failed. Nothing was drawn.
        - button "Try again"
        - button "Dismiss"
    - listitem:
      - group "A red fox asleep in fresh snow, watercolour, soft blue shadows provider_answer_lost":
        - paragraph: The image may have been drawn, but it got lost. It is not drawn again by itself.
        - button "Try again"
        - button "Dismiss"
    - listitem:
      - group "A red fox asleep in fresh snow, watercolour, soft blue shadows prompt_rejected":
        - paragraph: "The image service refuses this prompt. It names: violence."
        - button "Edit prompt"
        - button "Dismiss"
    - listitem:
      - link "A heron made of folded maps stands in a misty river at dawn, watercolour":
        - /url: LINK
        - img "A heron made of folded maps stands in a misty river at dawn, watercolour"`));
test("an_image_that_is_stored_later_reads_like_this", () => reads("stored-later", 1, "#gallery", `
- region "Gallery":
  - list:
    - listitem:
      - group "A red fox asleep in fresh snow, watercolour, soft blue shadows":
        - paragraph: Drawn and safe; it will appear by itself.
        - button "Dismiss"
    - listitem:
      - link "A heron made of folded maps stands in a misty river at dawn, watercolour":
        - /url: LINK
        - img "A heron made of folded maps stands in a misty river at dawn, watercolour"`));
test("a_used_up_quota_reads_like_this", () => reads("quota-used", 1, ".controls", `
- group "Size":
  - text: Size
  - radio "Square, 1024 × 1024" [checked]
  - radio "Portrait, 1024 × 1792"
  - radio "Landscape, 1792 × 1024"
- text: Quality
- combobox "Quality":
  - option "Standard" [selected]
  - option "HD"
- text: Prompt is sent
- combobox "Prompt is sent":
  - option "As typed" [selected]
  - option "With a style"
  - option "Rewritten"
- group "Number of images":
  - text: Number of images
  - radio "1 image" [checked]
  - text: "1"
  - radio "2 images"
  - text: "2"
  - radio "4 images"
  - text: "4"
- button "Again at HH:MM" [disabled]`));
test("an_own_image_in_the_lightbox_reads_like_this", () => reads("lightbox-own", 1, "dialog", `
- dialog "Image":
  - figure:
    - img "A red fox asleep in fresh snow, watercolour, soft blue shadows"
  - button "Next image"
  - complementary:
    - heading "Image" [level=2]
    - paragraph: A red fox asleep in fresh snow, watercolour, soft blue shadows
    - term: Sent as
    - definition: A red fox asleep in fresh snow, watercolour, soft blue shadows, watercolor
    - term: Model
    - definition: gpt-image-1
    - term: Size
    - definition: 1024 × 1024 · Standard
    - term: Drawn
    - definition:
      - time: WHEN
    - button "Use again"
    - button "Vary"
    - button "Copy prompt"
    - link "Download":
      - /url: LINK
    - button "Delete"
  - button "Close"
  - status: "Ready: A red fox asleep in fresh snow, watercolour, soft blue shadows"`));
test("a_deleted_image_reads_like_this", () => reads("deleted", 1, "#gallery", `
- region "Gallery":
  - list:
    - listitem:
      - paragraph: Deleted.
      - button "Undo"
    - listitem:
      - link "A heron made of folded maps stands in a misty river at dawn, watercolour":
        - /url: LINK
        - img "A heron made of folded maps stands in a misty river at dawn, watercolour"`));
test("storage_that_is_down_reads_like_this", () => reads("storage-down", 0, "#more", `
- paragraph: The images cannot be loaded right now. The page tries again by itself.
- button "Try again"`));
