// What the page tells: one region that screen readers speak, and one line under the bar.

import { byId } from "./element.js";
import { texts } from "./texts.js";

/** Speaks one sentence. @param {string} sentence */
export function announce(sentence) {
  byId("status").textContent = sentence;
}

/** The notices from the most to the least important. */
const NOTICES = /** @type {const} */ (["offline", "unreachable", "storageDown", "providerDown"]);
/** @typedef {typeof NOTICES[number]} Notice */
/** @type {Set<Notice>} */
const standing = new Set();

/** Shows a notice until it is withdrawn. @param {Notice} notice */
export function notify(notice) {
  standing.add(notice);
  show();
}

/** @param {Notice} notice */
export function withdraw(notice) {
  if (standing.delete(notice)) show();
}

function show() {
  const line = byId("notice");
  const first = NOTICES.find((notice) => standing.has(notice));
  const sentence = first ? texts[first] : "";
  if (line.textContent === sentence) return;
  announce(sentence || texts.back);
  line.textContent = sentence;
}

/** The app has answered. */
export function reachable() {
  withdraw("unreachable");
  withdraw("offline");
}

/** Shows or withdraws the notices that the outcome of a call is about. @param {unknown} [error] none after a success */
export function report(error) {
  const code = /** @type {{code?: string} | undefined} */ (error)?.code;
  if (code === "connection") return notify(navigator.onLine ? "unreachable" : "offline");
  reachable();
  if (code === "storage_unavailable") notify("storageDown");
  else if (!code) withdraw("storageDown");
}
