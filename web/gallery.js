// The gallery: one list for each page of the listing. CSS lays the tiles out in rows. A list that is far
// from the screen is emptied and keeps its height, so thousands of images cost no more than some hundred.

import { button, byId, element } from "./element.js";
import { client } from "./generation.js";
import { identity, known, learn, PAGE, tile } from "./images.js";
import { announce, report } from "./status.js";
import { say, texts } from "./texts.js";

/**
 * @typedef {import("./images.js").Item} Item
 * @typedef {{list: HTMLUListElement, items: Item[], isEmptied: boolean, isNear?: boolean}} Section
 */

/** The images of about the first row, which load before all others. */
const EAGER = 6;
/** A row that ends above this line, in pixels from the top of the screen, is not what the user looks at. */
const TOP = 100;
/** The interval of the look for images of others, and for one that is stored later. */
const LOOK_MS = 45_000;
const LOOK_SOON_MS = 8_000;
/** After a change of width, so many pages are laid out anew; in a longer gallery, rows keep gaps. */
const RELAID_SECTIONS = 10;

const root = byId("gallery");
const more = byId("more");
const newer = /** @type {HTMLButtonElement} */ (byId("newer"));

/** The first list also has the generations under way, and is never emptied. @type {Section[]} */
let sections = [{ list: element("ul", { className: "rows" }), items: [], isEmptied: false }];
root.append(sections[0].list);
let isStarted = false;
/** The tiles of an incomplete last row: they begin the next page. @type {Item[]} */
let carried = [];
/** @type {string | undefined} */
let next;
let isLoading = false;
/** @type {Set<HTMLLIElement>} */
const running = new Set();
/** Tiles of images that are stored later, by the name under which they will be listed. @type {Map<string, HTMLLIElement>} */
const awaited = new Map();
/** @type {Item[]} */
let waiting = [];
/** @type {string | undefined} */
let etag;
let failures = 0;
/** @type {() => void} */
let whenEmpty = () => {};

const far = new IntersectionObserver(
  (entries) => {
    let wait = 0;
    for (const { target, isIntersecting, boundingClientRect } of entries) {
      const section = sections.find(({ list }) => list === target);
      if (!section) continue;
      section.isNear = isIntersecting;
      // One list at a time, so that no frame takes long.
      if (isIntersecting) setTimeout(() => section.isNear && fill(section), 20 * wait++);
      else if (!section.isEmptied && boundingClientRect.height && !section.list.contains(document.activeElement)) {
        section.list.style.setProperty("height", `${boundingClientRect.height}px`);
        section.list.replaceChildren();
        section.isEmptied = true;
      }
    }
  },
  { rootMargin: "150% 0px" },
);

/** @param {Section} section */
function fill(section) {
  if (!section.isEmptied) return;
  section.list.replaceChildren(...section.items.map((item) => tile(item)));
  section.list.style.removeProperty("height");
  section.isEmptied = false;
}

/** Appends a page. @param {Item[]} items @param {boolean} isLast */
function append(items, isLast) {
  const batch = [...carried, ...items];
  carried = [];
  if (!batch.length) return;
  const isFirst = !sections[0].items.length;
  const section = isFirst ? sections[0] : { list: element("ul", { className: "rows" }), items: batch, isEmptied: false };
  const { list } = section;
  list.append(...batch.map((item, at) => tile(item, isFirst && at < EAGER)));
  if (isFirst) section.items = batch;
  else {
    root.append(list);
    sections.push(section);
    far.observe(list);
  }
  if (!isLast) {
    // The last row is not full yet. Its tiles wait for the next page, so no gap stays in the middle.
    const tops = Array.from(list.children, (child) => /** @type {HTMLElement} */ (child).offsetTop);
    const full = tops.indexOf(tops[tops.length - 1]);
    if (full > 0) {
      carried = batch.splice(full - list.children.length);
      while (list.children.length > full) list.lastChild?.remove();
      list.classList.add("full");
    }
  }
}

/** All images that are loaded, newest first. */
export const items = () => [...sections.flatMap((section) => section.items), ...carried];

/** Loads the next page. @returns {Promise<boolean>} whether there was one */
export async function loadMore() {
  if (isLoading || (isStarted && !next)) return false;
  isLoading = true;
  root.setAttribute("aria-busy", "true");
  const page = next;
  try {
    const answer = await client.list({ page, limit: PAGE });
    if (!answer) return false;
    if (!page) etag = answer.etag;
    next = answer.next;
    isStarted = true;
    failures = 0;
    report();
    // A page may be short or empty and still have a next one.
    append(learn(answer.images, page), !next);
    showEnd();
    return true;
  } catch (error) {
    report(error);
    failures++;
    showEnd();
    retryLater();
    return false;
  } finally {
    isLoading = false;
    root.setAttribute("aria-busy", "false");
    if (next && !failures) queueMicrotask(lookAtEnd);
  }
}

/** @type {ReturnType<typeof setTimeout> | undefined} */
let retry;
function retryLater() {
  clearTimeout(retry);
  retry = setTimeout(loadMore, Math.min(60_000, 2000 * 2 ** failures));
}

let isEndNear = false;
// A slow page hears of several changes at once; the last one counts.
new IntersectionObserver((entries) => ((isEndNear = entries[entries.length - 1].isIntersecting), lookAtEnd()), { rootMargin: "1200px 0px" }).observe(more);
function lookAtEnd() {
  if (isEndNear && next && !failures) requestAnimationFrame(() => void (isEndNear && loadMore()));
}

/** What follows the last tile: a button, a failure with a button, or the end. */
function showEnd() {
  root.querySelector(".empty")?.remove();
  const count = known.size;
  const hadFocus = more.contains(document.activeElement);
  if (failures) more.replaceChildren(element("p", {}, texts.listFailed), button(texts.tryAgain, loadMore));
  else if (next) more.replaceChildren(button(texts.more, continueHere));
  else more.replaceChildren(element("p", {}, count && say(texts.shown, { count })));
  if (hadFocus) more.querySelector("button")?.focus();
  if (isStarted && !failures && !next && !count && !running.size) whenEmpty();
}

/** Load more by hand: the focus goes to the first new tile. */
async function continueHere() {
  const before = sections.length;
  if (await loadMore()) sections[before]?.list.querySelector("a")?.focus();
}

/** @param {() => void} listener called when the gallery is known to be empty */
export async function startGallery(listener) {
  whenEmpty = listener;
  newer.addEventListener("click", showNewer);
  let width = root.clientWidth;
  new ResizeObserver(() => {
    if (root.clientWidth === width) return;
    relay(width / (root.clientWidth || 1));
    hold();
    width = root.clientWidth;
  }).observe(root);
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let rest;
  addEventListener("scroll", () => (clearTimeout(rest), (rest = setTimeout(mark, 100))), { passive: true });
  addEventListener("online", () => failures && loadMore());
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && look());
  schedule();
  await loadMore();
}

/** The first tile on the screen, and its distance from the top. @type {{id: string, y: number} | undefined} */
let anchor;
function mark() {
  for (const one of root.querySelectorAll("[data-id]")) {
    const { y, bottom } = one.getBoundingClientRect();
    if (bottom > TOP) return void (anchor = { id: idOf(one) ?? "", y });
  }
}

/** Another width makes the lists longer or shorter; what is at the top of the screen stays there. */
function hold() {
  const y = anchor && tileOf(anchor.id)?.getBoundingClientRect().y;
  if (anchor && y && scrollY) scrollBy({ top: y - anchor.y, behavior: "instant" });
}

/** Lays the rows out anew for another width. @param {number} stretch about how much longer the lists become */
function relay(stretch) {
  for (const { list, isEmptied } of sections) {
    list.classList.remove("full");
    if (isEmptied) list.style.setProperty("height", `${Math.round(list.offsetHeight * stretch)}px`);
  }
  if (sections.length > RELAID_SECTIONS) return;
  const focused = idOf(document.activeElement);
  const later = items();
  const [first, ...others] = sections;
  for (const { list } of others) {
    far.unobserve(list);
    list.remove();
  }
  sections = [{ ...first, items: [] }];
  first.list.replaceChildren(...[...running].reverse());
  carried = [];
  while (later.length) append(later.splice(0, PAGE), !later.length && !next);
  if (focused) tileOf(focused)?.querySelector("a")?.focus({ preventScroll: true });
}

/** The list that a new tile begins. */
function firstList() {
  root.querySelector(".empty")?.remove();
  sections[0].list.classList.remove("full");
  return sections[0];
}

/** Shows a generation in front. @param {HTMLLIElement} made */
export function addRunning(made) {
  running.add(made);
  firstList().list.prepend(made);
}

/** @param {HTMLLIElement} made */
export function removeRunning(made) {
  const hadFocus = made.contains(document.activeElement);
  const beside = made.nextElementSibling ?? made.previousElementSibling;
  running.delete(made);
  made.remove();
  if (hadFocus) (/** @type {HTMLElement | null | undefined} */ (beside?.querySelector("a, button")) ?? byId("prompt")).focus();
  if (!known.size && !running.size && isStarted) showEnd();
}

/**
 * The image of a generation takes its place.
 * @param {HTMLLIElement} made
 * @param {Item} item
 * @param {string} [behind]
 */
export async function land(made, item, behind) {
  if (!learn([item]).length) return removeRunning(made);
  // Decoded first, so that the preview is not followed by an empty box.
  const ahead = new Image();
  ahead.src = item.thumbnailUrl ?? item.url;
  await ahead.decode().catch(() => {});
  running.delete(made);
  sections[0].items.unshift(item);
  const hadFocus = made.contains(document.activeElement);
  const landed = tile(item, true, behind);
  made.replaceWith(landed);
  if (hadFocus) landed.querySelector("a")?.focus();
  showEnd();
}

/** @param {HTMLLIElement} made @param {string} name */
export function awaitListing(made, name) {
  awaited.set(name, made);
  schedule();
}

/** @type {ReturnType<typeof setTimeout> | undefined} */
let looking;
function schedule() {
  clearTimeout(looking);
  looking = setTimeout(look, awaited.size ? LOOK_SOON_MS : LOOK_MS);
}

/** Looks for images of others. They wait behind a button, so nothing moves by itself. */
async function look() {
  schedule();
  if (document.visibilityState !== "visible" || isLoading || failures || !isStarted) return;
  try {
    const answer = await client.list({ limit: PAGE, etag });
    report();
    if (!answer) return;
    etag = answer.etag;
    const unseen = answer.images.filter((image) => !known.has(identity(image)));
    for (const image of unseen) {
      const made = awaited.get(image.name);
      if (made) {
        awaited.delete(image.name);
        land(made, image);
      }
    }
    // After deletions the first page has images of a page that is not loaded yet. These are older.
    const oldest = items().at(-1)?.createdAt ?? "";
    waiting = unseen.filter((image) => !known.has(identity(image)) && (image.createdAt ?? "") > oldest);
    newer.hidden = !waiting.length;
    newer.textContent = say(texts.newer, { count: waiting.length });
  } catch (error) {
    report(error);
  }
}

function showNewer() {
  // Between a whole page of new images and the known ones there may be more.
  if (waiting.length >= PAGE) return location.reload();
  const { list, items } = firstList();
  const fresh = learn(waiting);
  waiting = [];
  newer.hidden = true;
  items.unshift(...fresh);
  list.prepend(...[...running].reverse(), ...fresh.map((item) => tile(item, true)));
  announce(say(texts.newer, { count: fresh.length }));
  root.scrollIntoView({ block: "start" });
  list.querySelector("a")?.focus({ preventScroll: true });
  showEnd();
}

/** @param {string} id @returns {HTMLLIElement | null} */
const tileOf = (id) => root.querySelector(`[data-id="${CSS.escape(id)}"]`);

/** @param {Element | null} inside */
const idOf = (inside) => /** @type {HTMLElement | null | undefined} */ (inside?.closest("[data-id]"))?.dataset.id;

/** Brings a tile to the screen and gives it the focus. @param {string} id */
export function focusTile(id) {
  const section = sections.find(({ items }) => items.some((item) => identity(item) === id));
  if (section) fill(section);
  const link = tileOf(id)?.querySelector("a");
  link?.focus({ preventScroll: true });
  link?.scrollIntoView({ block: "nearest" });
  if (!link) root.focus({ preventScroll: true });
}

/**
 * Shows the undo line in a deleted image's place, and takes the tile away when the time is over.
 * @param {Item} item
 * @param {number} ms
 * @param {() => Promise<void>} undo
 */
export function showDeleted(item, ms, undo) {
  const id = identity(item);
  let made = tileOf(id);
  let section = sections.find(({ items }) => items.includes(item));
  if (!made || !section) {
    // It was opened by its address, or waits for a full row.
    carried = carried.filter((other) => other !== item);
    section = firstList();
    section.items.unshift(item);
    made = tile(item);
    section.list.prepend(made);
  }
  const { items } = section;
  const place = made;
  const at = items.indexOf(item);
  items.splice(at, 1);
  known.delete(id);
  const back = button(texts.undo, restore);
  const gone = element("div", { className: "failed deleted" }, element("p", {}, texts.deleted), back);
  const link = place.querySelector("a");
  link?.setAttribute("tabindex", "-1");
  place.append(gone);
  place.classList.add("ended");
  back.focus();
  const timer = setTimeout(() => removeRunning(place), ms);
  async function restore() {
    clearTimeout(timer);
    back.disabled = true;
    try {
      await undo();
    } catch {
      return removeRunning(place);
    }
    known.set(id, item);
    items.splice(at, 0, item);
    gone.remove();
    place.classList.remove("ended");
    link?.removeAttribute("tabindex");
    link?.focus();
  }
}
