// Fills the gallery of a running app.

import { until } from "./browser.mjs";

/** Images that are drawn at once. */
const AT_ONCE = 4;

/**
 * Draws an image for each prompt, the last one last, and waits until all have thumbnails.
 * @param {string} url the app
 * @param {[prompt: string, shape: "square" | "portrait" | "landscape"][]} wanted
 */
export async function fill(url, wanted) {
  const { sizes } = await (await fetch(`${url}/api/options`)).json();
  /** @type {Record<string, (size: {width: number, height: number}) => boolean>} */
  const shapes = { square: ({ width, height }) => width === height, portrait: ({ width, height }) => width < height, landscape: ({ width, height }) => width > height };
  for (let from = 0; from < wanted.length; from += AT_ONCE) {
    await Promise.all(
      wanted.slice(from, from + AT_ONCE).map(async ([prompt, shape]) => {
        const body = JSON.stringify({ prompt, size: sizes.find(shapes[shape])?.name });
        const answer = await fetch(`${url}/api/generateImage`, { method: "POST", headers: { Accept: "application/json" }, body });
        if (!answer.ok) throw new Error(`${prompt}: ${answer.status} ${await answer.text()}`);
      }),
    );
  }
  await until("all images have thumbnails", async () => {
    const { imageUrls } = await (await fetch(`${url}/api/getImages?limit=200`)).json();
    return imageUrls.length >= wanted.length && imageUrls.every((/** @type {any} */ image) => image.thumbnailUrl);
  });
}

/** A gallery that shows what the page is for. @type {[string, "square" | "portrait" | "landscape"][]} */
export const GALLERY = [
  ["A valley of pines at first light, mist between the hills", "landscape"],
  ["Overlapping circles of rust, teal and ivory, abstract, quiet balance", "square"],
  ["A lighthouse keeper's view at dusk, gouache", "landscape"],
  ["Blue hour over the northern fells, long exposure", "square"],
  ["A small boat on a still sea, Japanese woodblock", "portrait"],
  ["Rolling hills after rain, watercolour", "landscape"],
  ["Geometric shapes in coral and sand, screen print", "square"],
  ["Moonrise above a silent forest", "landscape"],
  ["Harbour at the end of summer, risograph", "landscape"],
  ["The last ridge before the desert, film grain", "portrait"],
  ["Soap bubbles at sunset, macro", "landscape"],
  ["Snow light on far mountains, ink wash", "square"],
  ["A whale's road: open ocean under a low sun", "landscape"],
  ["Terraces of tea in morning fog", "landscape"],
  ["The highlands at noon, a path to nowhere", "landscape"],
  ["A modern poster of three moons", "portrait"],
];
