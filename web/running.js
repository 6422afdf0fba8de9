// A generation as a tile: it has the image's box from the first moment on, and keeps it.

import { button, CROSS, element, icon } from "./element.js";
import { announce, report } from "./status.js";
import { say, sentence, texts, USED_UP } from "./texts.js";

/** @typedef {import("./generation.js").Generation} Generation */

/** Errors that another prompt gets past. */
const REFUSED = ["prompt_rejected", "invalid_request"];
/** What a tile says. @type {Record<string, string>} */
const WORDS = { ...texts.phases, ...texts.waits };
/** How much the first, second and third preview are blurred, in pixels. */
const BLUR = [6, 3, 1];

/** @type {Map<Generation, () => void>} */
const ticking = new Map();
setInterval(() => ticking.forEach((tick) => tick()), 1000);

/** A hue that is the same for the same prompt. @param {string} text */
export function hue(text) {
  let sum = 7;
  for (const character of text) sum = (sum * 31 + (character.codePointAt(0) ?? 0)) % 9973;
  // The golden angle takes neighbours far apart.
  return Math.round(sum * 137.5) % 360;
}

/**
 * @param {Generation} generation
 * @param {{onaccepted: () => void, onimage: (tile: HTMLLIElement) => void, onstoredlater: (tile: HTMLLIElement, name: string) => void,
 *   onagain: () => void, onedit: () => void, onquota: () => void, onend: () => void, onremove: (tile: HTMLLIElement) => void}} hears
 */
export function runningTile(generation, hears) {
  const { prompt } = generation;
  const short = prompt.length > 80 ? `${prompt.slice(0, 80)}…` : prompt;
  const ring = element("span", { className: "ring", "aria-hidden": "true" });
  const phase = element("span", { className: "phase" });
  const time = element("span", { className: "time" });
  const cancel = button(texts.cancel, stop);
  const progress = element("div", { className: "progress" }, ring, element("p", {}, phase, time), cancel);
  const box = element("div", { className: "box", role: "group", "aria-label": prompt }, progress);
  const tile = element("li", { className: "tile running" }, box, element("p", { className: "caption", dir: "auto", "aria-hidden": "true" }, short));
  tile.style.setProperty("--ratio", String(generation.kept.ratio));
  box.style.setProperty("--hue", String(hue(prompt)));
  let previews = 0;
  let isAccepted = false;

  function tick() {
    const { elapsed, estimate } = generation;
    phase.textContent = WORDS[generation.waits ?? ""] ?? WORDS[generation.phase] ?? generation.phase;
    const isWithin = estimate !== undefined && elapsed <= estimate;
    time.textContent = isWithin ? say(texts.elapsedOf, { elapsed, estimate: Math.round(estimate) }) : say(texts.elapsed, { elapsed });
    ring.classList.toggle("endless", !isWithin);
    ring.style.setProperty("--part", String(isWithin ? elapsed / Math.max(1, estimate) : 0.25));
    cancel.hidden = !generation.canCancel;
  }

  async function stop() {
    cancel.disabled = true;
    try {
      await generation.cancel();
    } catch (error) {
      // It has begun in the meantime: the image comes.
      cancel.disabled = false;
      report(error);
    }
  }

  /** @param {string} url */
  function preview(url) {
    const image = element("img", { className: "preview", alt: "", src: url });
    image.style.setProperty("--blur", `${BLUR[Math.min(previews, BLUR.length - 1)]}px`);
    image.addEventListener("animationend", () => box.querySelectorAll(".preview").forEach((older) => older !== box.querySelector(".preview:last-of-type") && older.remove()));
    if (!previews++) announce(say(texts.saidPreview, { prompt: short }));
    box.insertBefore(image, progress);
  }

  /** @param {string} words @param {...Node} buttons */
  function end(words, ...buttons) {
    ticking.delete(generation);
    box.querySelectorAll(".preview").forEach((image) => image.remove());
    const dismiss = button(icon(CROSS), () => hears.onremove(tile), "dismiss", texts.dismiss);
    const message = element("div", { className: "failed" }, element("p", {}, words), element("div", { className: "actions" }, ...buttons));
    progress.replaceWith(message);
    message.after(dismiss);
  }

  /** @param {import("../client/visionary.js").ApiError} error */
  function fail(error) {
    const words = sentence(error);
    tile.classList.add("ended");
    const remove = () => hears.onremove(tile);
    if (REFUSED.includes(error.code)) end(words, button(texts.editPrompt, () => (remove(), hears.onedit())));
    else if (USED_UP.test(error.code)) end(words, button(texts.seeQuota, hears.onquota));
    else end(words, button(texts.tryAgain, () => (remove(), hears.onagain())));
    announce(say(texts.saidFailed, { prompt: short, reason: words }));
  }

  generation.onchange = (what) => {
    tick();
    if (what === "accepted") {
      hears.onaccepted();
      const { estimate } = generation;
      // Each new connection begins with this event.
      if (isAccepted) return;
      isAccepted = true;
      announce(estimate ? say(texts.saidAccepted, { prompt: short, estimate: Math.round(estimate) }) : `${texts.phases.drawing}: ${short}`);
    } else if (what === "preview" && generation.preview) preview(generation.preview);
    else if (what === "image") {
      ticking.delete(generation);
      announce(say(texts.saidReady, { prompt: short }));
      hears.onimage(tile);
    } else if (what === "storedLater") {
      tile.classList.add("ended");
      end(texts.storedLater);
      announce(texts.storedLater);
      hears.onstoredlater(tile, generation.storedAs ?? "");
    } else if (what === "failed" && generation.error) fail(generation.error);
    else if (what === "dropped") {
      ticking.delete(generation);
      if (generation.kept.isJob) announce(texts.errors.job_cancelled);
      hears.onremove(tile);
    }
    if (["image", "storedLater", "failed", "dropped"].includes(what)) hears.onend();
  };
  ticking.set(generation, tick);
  generation.run();
  tick();
  return tile;
}
