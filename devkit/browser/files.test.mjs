// The files of the page.

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import german from "../../web/texts.de.js";
import english from "../../web/texts.en.js";
import { decode } from "../../web/thumbhash.js";
import { thumbHash } from "./scene.mjs";
import { stripped } from "./stand-in.mjs";

const WEB = new URL("../../web/", import.meta.url);
const read = (/** @type {string} */ name) => readFileSync(new URL(name, WEB), "utf8");
/** The files of the page at `/`. That at `/docs` has its own. */
const names = [...readdirSync(WEB).filter((name) => /\.(html|css|js|svg)$/.test(name) && !name.startsWith("docs.")), "../client/visionary.js"];
const LANGUAGE = /^texts\..+\.js$/;

test("the_files_that_a_visit_loads_weigh_less_than_30_kib_compressed", () => {
  const sizes = names.map((name) => ({ name, size: gzipSync(stripped(name, read(name)), { level: 9 }).length }));
  // A visit loads the texts of one language.
  const languages = sizes.filter(({ name }) => LANGUAGE.test(name)).map(({ size }) => size);
  const sum = sizes.filter(({ name }) => !LANGUAGE.test(name)).reduce((sum, { size }) => sum + size, Math.max(...languages));
  console.log(`${sum} bytes in ${names.length - languages.length + 1} files`);
  assert.ok(sum < 30 * 1024, `${sum} bytes: ${JSON.stringify(sizes)}`);
});

test("a_file_has_no_text_that_would_be_taken_for_a_comment", () => {
  for (const name of names.filter((name) => name.endsWith(".js"))) {
    for (const [, text] of read(name).matchAll(/(["'`][^"'`\n]*\/\*[^"'`\n]*["'`])/g)) assert.fail(`${name}: ${text}`);
  }
});

test("every_language_has_every_text_with_the_same_values", () => {
  /** @param {any} texts @param {string} at @returns {[string, string][]} */
  const flat = (texts, at = "") => Object.entries(texts).flatMap(([key, text]) => (typeof text === "string" ? [[`${at}${key}`, text]] : flat(text, `${at}${key}.`)));
  const values = (/** @type {string} */ text) => (text.match(/\{\w+\}/g) ?? []).sort().join();
  const known = new Map(flat(german));
  for (const [key, text] of flat(english)) assert.equal(values(known.get(key) ?? `no ${key}`), values(text), key);
});

test("the_english_of_the_html_is_that_of_the_texts", () => {
  for (const [, key, text] of read("index.html").matchAll(/data-text="(\w+)"[^>]*>([^<]*)</g)) assert.equal(text, /** @type {any} */ (english)[key]);
});

test("every_module_is_preloaded_and_every_text_is_used", () => {
  const html = read("index.html");
  for (const name of names.filter((name) => name.endsWith(".js") && !LANGUAGE.test(name))) assert.ok(html.includes(`"${name}"`), `${name} is not in index.html`);
  const code = names.filter((name) => !LANGUAGE.test(name)).map(read).join("\n");
  for (const key of Object.keys(english)) assert.ok(new RegExp(`texts\\.${key}\\b|"${key}"|texts\\[`).test(code) && code.includes(key), `texts.${key} is used nowhere`);
});

test("a_thumbhash_is_decoded_to_colours_that_are_near_the_image", () => {
  for (const [seed, width, height] of [[1, 1024, 1024], [2, 1792, 1024], [3, 1024, 1792]]) {
    const image = decode(thumbHash(seed, width, height));
    assert.ok(image);
    assert.ok(Math.abs(image.width / image.height / (width / height) - 1) < 0.25);
    // The stand-in's images are lighter at the top than at the bottom.
    const rows = (/** @type {number} */ from, /** @type {number} */ to) => image.rgb.slice(from * image.width * 3, to * image.width * 3).reduce((sum, part) => sum + part, 0);
    assert.ok(rows(0, 3) > 1.3 * rows(image.height - 3, image.height));
  }
  // The example of the format's page.
  assert.equal(decode("1QcSHQRnh493V4dIh4eXh1h4kJUI")?.height, 16);
  for (const wrong of ["", "%", "AAAA"]) assert.equal(decode(wrong), undefined);
});
