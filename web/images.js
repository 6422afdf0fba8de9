// The images that the page knows: their links, which expire, and their tiles.

import { button, element } from "./element.js";
import { client } from "./generation.js";
import { report } from "./status.js";
import { texts } from "./texts.js";
import { dataUrl } from "./thumbhash.js";

/** @typedef {import("../client/visionary.js").ListedImage & {page?: string}} Item an image, and the page of the listing that it is from */

/** Images of a page of the listing. */
export const PAGE = 60;
/** New links serve all images of a page for this time, before the page is asked again. */
const HEALED_MS = 30_000;

/** @type {Map<string, Item>} */
export const known = new Map();

/** The images among these that are new here. @param {Item[]} images @param {string} [page] */
export function learn(images, page) {
  const fresh = images.filter((image) => !known.has(identity(image)));
  for (const image of fresh) {
    image.page = page;
    known.set(identity(image), image);
  }
  return fresh;
}

/** @type {Map<string, {at: number, done: Promise<unknown>}>} */
const healed = new Map();

/** Gets new links for an image, and for all of its page. @param {Item} item */
export async function heal(item) {
  const page = item.page ?? "";
  let run = healed.get(page);
  if (!run || Date.now() - run.at > HEALED_MS) {
    run = { at: Date.now(), done: refresh(page || undefined) };
    healed.set(page, run);
  }
  const before = item.url;
  await run.done.catch(report);
  if (item.url === before && item.id) Object.assign(item, links(await client.details(item.id)));
}

/** @param {string} [page] */
async function refresh(page) {
  const answer = await client.list({ page, limit: PAGE });
  for (const image of answer?.images ?? []) {
    const item = known.get(identity(image));
    if (item) Object.assign(item, links(image));
  }
}

/** @param {import("../client/visionary.js").ListedImage} image */
const links = ({ url, thumbnailUrl, downloadUrl }) => ({ url, ...(thumbnailUrl && { thumbnailUrl }), ...(downloadUrl && { downloadUrl }) });

/** The name by which the page and screen readers call an image. @param {Item} item */
export const caption = (item) => item.prompt?.trim() || item.name.replace(/_\d+\.\w+$/, "") || texts.untitled;

/** @param {Item} item */
export const identity = (item) => item.id ?? item.name;

/** The address of an image's lightbox. @param {Item} item */
export const address = (item) => `#image=${encodeURIComponent(identity(item))}`;

/** @param {{width?: number, height?: number}} item */
export const ratio = ({ width, height }) => (width && height ? Math.min(4, Math.max(0.25, width / height)) : 1);

/**
 * An image as a tile.
 * @param {Item} item
 * @param {boolean} [isFirst] whether it is in the first row
 * @param {string} [behind] the URL of what is shown until the image is loaded
 */
export function tile(item, isFirst = false, behind = item.placeholder && dataUrl(item.placeholder)) {
  const image = element("img", {
    alt: caption(item),
    width: item.width,
    height: item.height,
    decoding: "async",
    loading: isFirst ? "eager" : "lazy",
    fetchPriority: isFirst ? "high" : "auto",
  });
  const link = element("a", { className: "box", href: address(item) }, image);
  const made = element("li", { className: "tile" }, link, element("p", { className: "caption", dir: "auto", "aria-hidden": "true" }, caption(item).split("\n")[0].slice(0, 120)));
  made.dataset.id = identity(item);
  made.style.setProperty("--ratio", String(ratio(item)));
  if (behind) link.style.setProperty("background-image", `url("${behind}")`);

  let isHealed = false;
  const load = () => (image.src = item.thumbnailUrl ?? item.url);
  image.addEventListener("load", () => image.classList.add("loaded"));
  image.addEventListener("error", async () => {
    // Links expire. The listing has new ones, once; if these fail, too, the image is gone or storage is down.
    if (!isHealed) {
      isHealed = true;
      if (await heal(item).then(() => true, () => false)) return load();
    }
    const again = () => (failed.remove(), (isHealed = false), load());
    const failed = element("div", { className: "failed" }, element("p", {}, texts.imageFailed), button(texts.tryAgain, again));
    made.append(failed);
    addEventListener("online", () => failed.isConnected && again(), { once: true });
  });
  load();
  return made;
}
