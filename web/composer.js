// The prompt box, what may be chosen for an image, and the suggestion.

import { byId, element } from "./element.js";
import { client } from "./generation.js";
import { recall, remember } from "./memory.js";
import { say, texts } from "./texts.js";

/**
 * @typedef {import("../client/visionary.js").GenerateImageRequest} Body
 * @typedef {import("../client/visionary.js").Options} Options
 */

/** A second Draw with the same request within this time is a double click. */
const DOUBLE_MS = 1000;
/** From this share of the limit on, the characters are counted. */
const COUNT_FROM = 0.8;

const form = /** @type {HTMLFormElement} */ (byId("composer"));
const prompt = /** @type {HTMLTextAreaElement} */ (byId("prompt"));
const draw = /** @type {HTMLButtonElement} */ (byId("draw"));
const quality = /** @type {HTMLSelectElement} */ (byId("quality"));
const enhance = /** @type {HTMLSelectElement} */ (byId("enhance"));
/** The key's name on a keyboard of the language. */
const control = document.documentElement.lang === "de" ? "Strg" : "Ctrl";
const isMac = /Mac|iP(hone|ad)/.test(navigator.userAgent);

/** @type {Options | undefined} */
let options;
let suggestion = "";
/** @type {string | undefined} */
let againAt;
let last = { body: "", at: 0 };
/** @type {ReturnType<typeof setTimeout> | undefined} */
let soon;

/** @param {(bodies: Body[], ratio: number) => void} onDraw */
export function startComposer(onDraw) {
  // Firefox keeps what was typed before the script; so does a remembered draft.
  if (!prompt.value) prompt.value = recall("draft", "");
  prompt.addEventListener("input", () => (remember("draft", prompt.value || undefined), refresh()));
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  form.addEventListener("change", () => {
    remember("choices", { ...choices(), count: Number(chosen("variations")) });
  });
  byId("styles").addEventListener("change", () => {
    // A style has no effect on a prompt that is sent as typed.
    if (chosen("styles") && enhance.value === "off") enhance.value = "style";
    else if (!chosen("styles") && enhance.value === "style") enhance.value = "off";
    // The arrow keys pass over several styles.
    clearTimeout(soon);
    if (!prompt.value) soon = setTimeout(suggest, 300);
  });
  enhance.addEventListener("change", () => {
    if (enhance.value === "off") byId("styles").querySelector("input")?.click();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const problem = obstacle();
    if (problem) return problem === "empty" ? useSuggestion() : undefined;
    const body = { prompt: prompt.value.trim(), ...choices() };
    const written = JSON.stringify(body);
    if (last.body === written && Date.now() - last.at < DOUBLE_MS) return;
    last = { body: written, at: Date.now() };
    const { width, height } = options?.sizes.find(({ name }) => name === body.size) ?? { width: 1, height: 1 };
    onDraw(Array.from({ length: Number(chosen("variations")) || 1 }, () => body), width / height);
  });
  byId("use").addEventListener("click", useSuggestion);
  byId("another").addEventListener("click", suggest);
  const chips = byId("styles");
  byId("onward").addEventListener("click", () => {
    const isAtEnd = chips.scrollLeft + chips.clientWidth > chips.scrollWidth - 8;
    chips.scrollTo({ left: isAtEnd ? 0 : chips.scrollLeft + chips.clientWidth * 0.7, behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  });
  draw.disabled = false;
  refresh();
}

/** @param {Options} told */
export function offer(told) {
  options = told;
  const kept = recall("choices", /** @type {Partial<Body> & {count?: number}} */ ({}));
  const size = kept.size && told.sizes.some(({ name }) => name === kept.size) ? kept.size : (told.sizes.find((one) => one.isDefault) ?? told.sizes[0])?.name;
  byId("sizes").append(
    ...told.sizes.map(({ name, width, height }) => {
      const shape = element("span", { className: "shape" });
      shape.style.setProperty("--ratio", String(width / height));
      const words = width === height ? texts.square : width > height ? texts.landscape : texts.portrait;
      return radio("sizes", name, name === size, shape, `${words}, ${width} × ${height}`);
    }),
  );
  const offerQualities = () => {
    // The price ceiling may allow fewer of a large size.
    const names = told.sizes.find(({ name }) => name === chosen("sizes"))?.qualities ?? told.qualities.map(({ name }) => name);
    fill(quality, names, texts.qualities, [quality.value, kept.quality, told.qualities.find((one) => one.isDefault)?.name].find((name) => name && names.includes(name)));
  };
  byId("sizes").addEventListener("change", offerQualities);
  offerQualities();
  fill(enhance, told.enhancements, texts.enhancements, kept.enhance ?? told.defaultEnhancement);
  byId("variations").append(
    ...told.variations.map((count) =>
      radio("variations", String(count), count === (kept.count ?? 1), String(count), say(texts.images, { count })),
    ),
  );
  const style = told.styles.some(({ name }) => name === kept.style) ? kept.style : "";
  byId("styles").append(
    radio("styles", "", !style, texts.noStyle),
    ...told.styles.map(({ name, title }) => radio("styles", name, name === style, styleTitle(name, title))),
  );
  refresh();
}

/** @param {string} name @param {string} [title] */
const styleTitle = (name, title) => /** @type {Record<string, string>} */ (texts.styles)[name] ?? title ?? name;

/**
 * @param {string} group
 * @param {string} value
 * @param {boolean} isChosen
 * @param {string | Node} face
 * @param {string} [label]
 */
function radio(group, value, isChosen, face, label) {
  return element("label", { title: label }, element("input", { type: "radio", name: group, value, checked: isChosen, "aria-label": label }), element("span", {}, face));
}

/**
 * @param {HTMLSelectElement} select
 * @param {string[]} names
 * @param {Record<string, string>} words
 * @param {string | undefined} value
 */
function fill(select, names, words, value) {
  select.replaceChildren(...names.map((name) => element("option", { value: name }, words[name] ?? name)));
  if (value && names.includes(value)) select.value = value;
  select.disabled = names.length < 2;
}

/** @param {string} group */
const chosen = (group) => /** @type {HTMLInputElement | null} */ (form.querySelector(`input[name="${group}"]:checked`))?.value ?? "";

/** @returns {Omit<Body, "prompt">} */
function choices() {
  return {
    size: chosen("sizes") || undefined,
    quality: quality.value || undefined,
    style: chosen("styles") || undefined,
    enhance: enhance.value || undefined,
  };
}

/** Why Draw cannot draw. */
function obstacle() {
  if (againAt) return "quota";
  if (options && [...prompt.value].length > options.maxPromptCharacters) return "long";
  return prompt.value.trim() ? undefined : "empty";
}

function refresh() {
  const isEmpty = !prompt.value;
  byId("use").hidden = byId("another").hidden = !isEmpty || !suggestion;
  const problem = obstacle();
  draw.textContent = againAt ? say(texts.againAt, { time: againAt }) : texts.draw;
  draw.setAttribute("aria-disabled", String(problem === "quota" || problem === "long"));
  const count = [...prompt.value].length;
  const limit = options?.maxPromptCharacters ?? Infinity;
  const hint = byId("hint");
  hint.classList.toggle("danger", problem === "long");
  if (count > limit * COUNT_FROM) hint.textContent = say(texts.tooLong, { count, limit });
  else hint.textContent = say(texts.drawKeys, { keys: isMac ? "⌘ Enter" : `${control} + Enter` });
}

/** @param {string | undefined} time the time from which one can draw again */
export function closeUntil(time) {
  againAt = time;
  refresh();
}

/** Asks for an idea. A failure leaves the placeholder as it is. */
export async function suggest() {
  const another = /** @type {HTMLButtonElement} */ (byId("another"));
  another.disabled = true;
  try {
    suggestion = await client.suggestion({ style: chosen("styles") });
    prompt.placeholder = suggestion;
    refresh();
  } catch {
    // The box works without an idea.
  }
  another.disabled = false;
}

function useSuggestion() {
  if (suggestion) write({ prompt: suggestion });
  else prompt.focus();
}

/** A request without the choices that the app does not offer any more. @param {Body} body @returns {Body} */
export function offered({ prompt, size, quality, style, enhance }) {
  /** @param {{name: string}[] | undefined} names @param {string | undefined} value */
  const among = (names, value) => (names?.some(({ name }) => name === value) ? value : undefined);
  return { prompt, size: among(options?.sizes, size), quality: among(options?.qualities, quality), style: among(options?.styles, style), enhance };
}

/** Puts a prompt and choices into the composer. @param {Body} body */
export function write(body) {
  prompt.value = body.prompt;
  remember("draft", body.prompt);
  for (const [group, value] of [["sizes", body.size], ["styles", body.style]]) {
    if (value === undefined) continue;
    for (const input of form.querySelectorAll(`input[name="${group}"]`)) {
      const one = /** @type {HTMLInputElement} */ (input);
      one.checked = one.value === value;
    }
  }
  for (const [select, value] of /** @type {const} */ ([[quality, body.quality], [enhance, body.enhance]])) {
    if (value && [...select.options].some((option) => option.value === value)) select.value = value;
  }
  refresh();
  prompt.focus();
  form.scrollIntoView({ block: "center" });
}

/** Empties the box once its prompt is drawn. @param {string} drawn */
export function finished(drawn) {
  if (prompt.value.trim() !== drawn) return;
  prompt.value = "";
  remember("draft", undefined);
  refresh();
  suggest();
}
