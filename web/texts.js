// The page's words in the user's language, and numbers and times by `Intl`.

import { ApiError } from "../client/visionary.js";

/**
 * @typedef {{one: string, other: string}} Plural
 * @typedef {typeof import("./texts.en.js").default extends infer T ? {[K in keyof T]: T[K] extends string ? string : T[K] extends Plural ? Plural : Record<string, string>} : never} Texts
 */

/**
 * The languages, each with the name that its speakers look for, and its file.
 * @type {{code: string, name: string, load: () => Promise<Texts>}[]}
 */
export const LANGUAGES = [
  { code: "en", name: "English", load: async () => (await import("./texts.en.js")).default },
  { code: "de", name: "Deutsch", load: async () => (await import("./texts.de.js")).default },
];

export const language = document.documentElement.lang;
/** @type {Texts} */
export const texts = await (LANGUAGES.find(({ code }) => code === language) ?? LANGUAGES[0]).load();

const plural = new Intl.PluralRules(language);
const number = new Intl.NumberFormat(language);
const relative = new Intl.RelativeTimeFormat(language, { numeric: "auto" });
const exact = new Intl.DateTimeFormat(language, { dateStyle: "long", timeStyle: "short" });
const clock = new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

/**
 * Puts values into a text. A value may be hostile: the result is for text nodes and attributes only.
 * @param {string | Plural} text
 * @param {Record<string, string | number>} values
 */
export function say(text, values) {
  const form = typeof text === "string" ? text : text[plural.select(Number(values.count)) === "one" ? "one" : "other"];
  return form.replace(/\{(\w+)\}/g, (_, name) => {
    const value = values[name];
    return typeof value === "number" ? number.format(value) : (value ?? "");
  });
}

/** The time of day. @param {Date} at */
export const timeOfDay = (at) => clock.format(at);
/** @param {Date} at */
export const exactTime = (at) => exact.format(at);

/** @type {[Intl.RelativeTimeFormatUnit, number][]} */
const UNITS = [["year", 31_557_600], ["month", 2_629_800], ["week", 604_800], ["day", 86_400], ["hour", 3600], ["minute", 60]];

/** "3 hours ago". @param {Date} at */
export function ago(at) {
  const seconds = (at.getTime() - Date.now()) / 1000;
  const [unit, size] = UNITS.find(([, size]) => Math.abs(seconds) >= size) ?? ["second", 1];
  return relative.format(Math.round(seconds / size), unit);
}

/** Translates what the HTML has in English. */
export function translate() {
  const known = /** @type {Record<string, any>} */ (texts);
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = known[node.getAttribute("data-text") ?? ""];
  for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", known[node.getAttribute("data-label") ?? ""]);
  for (const node of document.querySelectorAll("[data-placeholder]")) node.setAttribute("placeholder", known[node.getAttribute("data-placeholder") ?? ""]);
}

/** The codes of limits that a new day lifts. */
export const USED_UP = /(exceeded|budget_reached)$/;

/** The sentence for a failure. @param {unknown} error */
export function sentence(error) {
  const { code, detail, categories, invocationId, status, retryAfter } = error instanceof ApiError ? error : new ApiError("unknown");
  const midnight = new Date(new Date().setUTCHours(24, 0, 0, 0));
  const time = timeOfDay(retryAfter ? new Date(Date.now() + retryAfter * 1000) : midnight);
  const errors = /** @type {Record<string, string | undefined>} */ (texts.errors);
  const known = errors[code] ?? (USED_UP.test(code) ? errors.limit : code === "provider_timeout" ? errors.provider_answer_lost : undefined);
  const words = [say(known ?? (detail || texts.errors.unknown), { time })];
  // The app's sentence names what to change.
  if (code === "invalid_request" && detail) words.push(detail);
  if (categories.length) words.push(say(texts.categories, { list: categories.join(", ") }));
  if ((!known || code === "internal") && invocationId && status >= 500) words.push(say(texts.reference, { id: invocationId }));
  return words.join(" ");
}
