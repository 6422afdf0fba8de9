// One image as large as it fits, with its details. Its address is `#image=<id>`, so Back closes it.

import { button, byId, CROSS, element, icon } from "./element.js";
import { focusTile, items, loadMore, showDeleted } from "./gallery.js";
import { client } from "./generation.js";
import { address, caption, heal, identity, known, ratio } from "./images.js";
import { deleteToken } from "./memory.js";
import { announce } from "./status.js";
import { ago, exactTime, sentence, texts } from "./texts.js";

/**
 * @typedef {import("./images.js").Item} Item
 * @typedef {Item & Partial<import("../client/visionary.js").ImageDetails>} Details
 */

/** The app restores a deleted image for longer; the line with Undo stays as long as this. */
const UNDO_MS = 10_000;
/** A touch that moves so many pixels sideways is a swipe. */
const SWIPE = 50;

/** @type {HTMLDialogElement | undefined} */
let dialog;
/** @type {Item | undefined} */
let shown;
/** Whether this page has opened the lightbox, so that one step back closes it. */
let isOurs = false;
/** @type {{onuse: (body: import("../client/visionary.js").GenerateImageRequest) => void, onvary: (body: import("../client/visionary.js").GenerateImageRequest, ratio: number) => void}} */
let hears;

/** @param {typeof hears} listeners */
export function startLightbox(listeners) {
  hears = listeners;
  addEventListener("hashchange", ({ oldURL }) => {
    isOurs = !oldURL.includes("#image=");
    follow();
  });
  follow();
}

async function follow() {
  const id = /^#image=(.+)$/.exec(location.hash)?.[1];
  if (!id) return hide();
  try {
    const name = decodeURIComponent(id);
    open(known.get(name) ?? (await client.details(name)));
  } catch (error) {
    history.replaceState(null, "", location.pathname);
    announce(sentence(error));
  }
}

function hide() {
  if (!shown) return;
  const id = identity(shown);
  shown = undefined;
  dialog?.close();
  document.body.append(byId("status"));
  focusTile(id);
}

function close() {
  if (isOurs) return history.back();
  history.replaceState(null, "", location.pathname);
  hide();
}

/** @param {Item} item */
function open(item) {
  dialog ??= build();
  shown = item;
  paint(item);
  if (dialog.open) return announce(caption(item));
  // What is outside of an open dialog is not spoken.
  dialog.append(byId("status"));
  dialog.showModal();
}

/** @param {1 | -1} step */
async function turn(step) {
  if (!shown) return;
  let all = items();
  const at = all.indexOf(shown) + step;
  if (at >= all.length && (await loadMore())) all = items();
  const other = all[at];
  if (!other) return;
  history.replaceState(null, "", address(other));
  open(other);
}

const figure = element("figure", { className: "stage" });
const aside = element("aside", { className: "details" });

function build() {
  const shut = button(icon(CROSS), close, "round close", texts.close);
  const back = button(icon("M12 4l-6 6 6 6"), () => turn(-1), "round previous", texts.previous);
  const on = button(icon("M8 4l6 6-6 6"), () => turn(1), "round next", texts.next);
  const made = element("dialog", { className: "lightbox", "aria-label": texts.image }, figure, back, on, aside, shut);
  made.addEventListener("cancel", (event) => (event.preventDefault(), close()));
  // A second Esc closes a dialog without asking.
  made.addEventListener("close", () => shown && close());
  made.addEventListener("keydown", (event) => {
    const step = event.key === "ArrowLeft" ? -1 : event.key === "ArrowRight" ? 1 : 0;
    if (step && !event.altKey && !event.ctrlKey && !event.metaKey) turn(step);
  });
  let from = { x: 0, y: 0 };
  figure.addEventListener("touchstart", ({ changedTouches: [touch] }) => (from = { x: touch.clientX, y: touch.clientY }), { passive: true });
  figure.addEventListener("touchend", ({ changedTouches: [touch] }) => {
    const x = touch.clientX - from.x;
    if (Math.abs(x) > SWIPE && Math.abs(x) > 2 * Math.abs(touch.clientY - from.y)) turn(x < 0 ? 1 : -1);
  });
  figure.addEventListener("click", (event) => event.target === figure && close());
  document.body.append(made);
  return made;
}

/** Shows an image, and its details when they are loaded. @param {Item} item */
async function paint(item) {
  const all = items();
  const at = all.indexOf(item);
  dialog?.querySelector(".previous")?.toggleAttribute("disabled", at < 1);
  dialog?.querySelector(".next")?.toggleAttribute("disabled", at < 0 || (at === all.length - 1 && all.length < 2));
  const image = element("img", { alt: caption(item), width: item.width, height: item.height });
  const frame = element("div", { className: "frame" }, image);
  frame.style.setProperty("--ratio", String(ratio(item)));
  // The thumbnail is in the browser's cache, so there is something to see at once.
  if (item.thumbnailUrl) frame.prepend(element("img", { alt: "", src: item.thumbnailUrl, className: "under" }));
  let isHealed = false;
  image.addEventListener("load", () => image.classList.add("loaded"));
  image.addEventListener("error", async () => {
    if (!isHealed && (await heal(item).then(() => true, () => false))) {
      image.src = item.url;
    } else frame.append(element("p", { className: "broken" }, texts.imageFailed));
    isHealed = true;
  });
  image.src = item.url;
  figure.replaceChildren(frame);
  describe(item);
  if (!item.id) return;
  try {
    const details = await client.details(item.id);
    if (shown === item) describe({ ...item, ...details });
  } catch {
    if (shown === item) aside.append(element("p", { className: "hint" }, texts.moreDetailsFailed));
  }
}

/** @param {Details} image */
function describe(image) {
  const prompt = caption(image);
  /** @param {string} name @param {Node | string | null | undefined} value @param {string} [className] */
  const row = (name, value, className) => value && element("div", { className }, element("dt", {}, name), element("dd", { dir: "auto" }, value));
  const drawn = image.createdAt ? new Date(image.createdAt) : undefined;
  const when = drawn && element("time", { dateTime: image.createdAt, title: exactTime(drawn), tabIndex: 0, "aria-label": exactTime(drawn) }, ago(drawn));
  const size = image.size ?? (image.width ? `${image.width}x${image.height}` : undefined);
  const quality = image.quality && (/** @type {Record<string, string>} */ (texts.qualities)[image.quality] ?? image.quality);
  const isSentAsTyped = !image.finalPrompt || image.finalPrompt === image.prompt;
  const isStyled = Boolean(image.enhancement && image.enhancement !== "off" && image.finalPrompt);
  const body = { prompt, size: image.size, quality: image.quality, enhance: "off", style: "" };
  // The keywords of a style are in the final prompt only.
  const varied = { ...body, prompt: isStyled ? (image.finalPrompt ?? prompt) : prompt, style: undefined };
  const copy = button(texts.copyPrompt, async () => {
    const said = await navigator.clipboard.writeText(prompt).then(() => texts.copied, sentence);
    copy.textContent = said;
    announce(said);
    setTimeout(() => (copy.textContent = texts.copyPrompt), 2000);
  });
  const token = image.id && deleteToken(image.id);
  const remove = token && button(texts.remove, (event) => erase(event, token), "plain danger");
  const focused = aside.contains(document.activeElement) ? document.activeElement?.textContent : undefined;
  aside.replaceChildren(
    element("h2", { className: "unseen" }, texts.image),
    element("p", { className: "prompt", dir: "auto" }, prompt),
    element("dl", {},
      row(texts.sentAs, isSentAsTyped ? undefined : image.finalPrompt, "whole"),
      row(texts.revisedAs, image.revisedPrompt !== image.finalPrompt ? image.revisedPrompt : undefined, "whole"),
      row(texts.model, image.model),
      row(texts.size, [size?.replace("x", " × "), quality].filter(Boolean).join(" · ")),
      row(texts.when, when),
    ),
    element("div", { className: "actions" },
      button(texts.useAgain, () => leave(() => hears.onuse(body))),
      button(texts.vary, () => leave(() => hears.onvary(varied, ratio(image)))),
      // Only secure contexts have a clipboard.
      navigator.clipboard && copy,
      image.downloadUrl && element("a", { className: "plain", href: image.downloadUrl, download: "" }, texts.download),
      remove,
    ),
  );
  if (focused) for (const one of aside.querySelectorAll("button, a")) if (one.textContent === focused) /** @type {HTMLElement} */ (one).focus();
}

/** Closes, then acts. @param {() => void} act */
function leave(act) {
  addEventListener("hashchange", act, { once: true });
  if (isOurs) return history.back();
  close();
  act();
}

/** @param {MouseEvent} event @param {string} token */
async function erase({ currentTarget }, token) {
  const item = shown;
  if (!item?.id) return;
  const { id } = item;
  const button = /** @type {HTMLButtonElement} */ (currentTarget);
  button.disabled = true;
  try {
    await client.remove(id, token);
    announce(texts.deleted);
    leave(() =>
      showDeleted(item, UNDO_MS, async () => {
        try {
          await client.restore(id, token);
          announce(texts.restored);
        } catch (error) {
          announce(sentence(error));
          throw error;
        }
      }),
    );
  } catch (error) {
    const words = sentence(error);
    announce(words);
    aside.append(element("p", { className: "hint danger" }, words));
    button.disabled = false;
  }
}
