// What is left of the caller's daily images, and when it begins anew.

import { byId } from "./element.js";
import { client } from "./generation.js";
import { say, texts, timeOfDay } from "./texts.js";

/** @type {import("../client/visionary.js").Quota | undefined} */
let quota;
/** @type {(againAt: string | undefined) => void} */
let onchange = () => {};

/** @param {(againAt: string | undefined) => void} listener hears the time from which one can draw again */
export function watchQuota(listener) {
  onchange = listener;
}

/** Asks the app. A failure leaves what is shown. */
export async function loadQuota() {
  try {
    quota = await client.quota();
    show();
  } catch {
    // The next generation tells it.
  }
}

/** @param {number | undefined} left what `accepted` says */
export function quotaIsNow(left) {
  if (!quota?.limit || left === undefined) return;
  quota.remaining = left;
  show();
}

function show() {
  const { limit, remaining, resetsAt } = quota ?? {};
  const line = byId("quota");
  if (limit == null || remaining == null || !resetsAt) {
    line.textContent = "";
    return onchange(undefined);
  }
  const at = new Date(resetsAt);
  const time = timeOfDay(at);
  line.textContent = `${say(texts.quotaLeft, { left: remaining, limit })} · ${say(texts.resets, { time })}`;
  onchange(remaining > 0 ? undefined : time);
  // A page that stays open over midnight asks again.
  const wait = at.getTime() - Date.now() + 1000;
  clearTimeout(timer);
  if (wait > 0 && wait < 2 ** 31) timer = setTimeout(loadQuota, wait);
}
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;
