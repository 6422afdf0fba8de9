// The images that the page knows, and their links, which expire.

import { client } from "./generation.js";
import { report } from "./status.js";
import { identity } from "./tile.js";

/** @typedef {import("./tile.js").Item} Item */

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

/** @param {import("./api.js").Listed} image */
const links = ({ url, thumbnailUrl, downloadUrl }) => ({ url, ...(thumbnailUrl && { thumbnailUrl }), ...(downloadUrl && { downloadUrl }) });
