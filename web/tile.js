// An image of the gallery as a tile.

import { button, element } from "./element.js";
import { texts } from "./texts.js";
import { dataUrl } from "./thumbhash.js";

/** @typedef {import("./api.js").Listed & {page?: string}} Item an image, and the page of the listing that it is from */

/** The name by which the page and screen readers call an image. @param {Item} item */
export const caption = (item) => item.prompt?.trim() || item.name.replace(/_\d+\.\w+$/, "") || texts.untitled;

/** @param {Item} item */
export const identity = (item) => item.id ?? item.name;

/** The address of an image's lightbox. @param {Item} item */
export const address = (item) => `#image=${encodeURIComponent(identity(item))}`;

/** @param {{width?: number, height?: number}} item */
export const ratio = ({ width, height }) => (width && height ? Math.min(4, Math.max(0.25, width / height)) : 1);

/**
 * @param {Item} item
 * @param {{heal: (item: Item) => Promise<unknown>, isFirst?: boolean, behind?: string}} how `behind` is shown until
 *   the image is loaded
 */
export function tile(item, { heal, isFirst = false, behind = item.placeholder && dataUrl(item.placeholder) }) {
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
    const again = button(texts.tryAgain, () => (failed.remove(), (isHealed = false), load()));
    const failed = element("div", { className: "failed" }, element("p", {}, texts.imageFailed), again);
    made.append(failed);
  });
  load();
  return made;
}
