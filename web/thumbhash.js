// Decodes a ThumbHash: some 25 bytes that hold the first cosine terms of an image's brightness (l), its
// yellow-blue (p) and red-green (q) difference, and its opacity. Format: https://evanw.github.io/thumbhash/

/** The longer side of the decoded image; the browser smooths it. */
const SIDE = 20;

/**
 * @param {string} base64
 * @returns {{width: number, height: number, rgba: Uint8ClampedArray<ArrayBuffer>} | undefined} nothing for a text that is no ThumbHash
 */
export function decode(base64) {
  /** @type {number[]} */
  let bytes;
  try {
    bytes = Array.from(atob(base64), (character) => character.charCodeAt(0));
  } catch {
    return undefined;
  }
  if (bytes.length < 5) return undefined;
  const head = bytes[0] | (bytes[1] << 8) | (bytes[2] << 16);
  const tail = bytes[3] | (bytes[4] << 8);
  const hasAlpha = head >> 23 === 1;
  const isWide = tail >> 15 === 1;
  const most = hasAlpha ? 5 : 7;
  const columns = Math.max(3, isWide ? most : tail & 7);
  const rows = Math.max(3, isWide ? tail & 7 : most);

  // After the head: half a byte for each term, the low half first.
  let half = hasAlpha ? 12 : 10;
  /** @param {number} across @param {number} down @param {number} scale */
  const terms = (across, down, scale) => {
    const list = [];
    for (let y = 0; y < down; y++)
      for (let x = y ? 0 : 1; x * down < across * (down - y); x++, half++) {
        const value = (bytes[half >> 1] >> ((half & 1) * 4)) & 15;
        list.push({ x, y, weight: 2 * scale * (value / 7.5 - 1) });
      }
    return list;
  };
  const l = { base: (head & 63) / 63, terms: terms(columns, rows, ((head >> 18) & 31) / 31) };
  const p = { base: ((head >> 6) & 63) / 31.5 - 1, terms: terms(3, 3, (((tail >> 3) & 63) / 63) * 1.25) };
  const q = { base: ((head >> 12) & 63) / 31.5 - 1, terms: terms(3, 3, (((tail >> 9) & 63) / 63) * 1.25) };
  const a = hasAlpha ? { base: (bytes[5] & 15) / 15, terms: terms(5, 5, (bytes[5] >> 4) / 15) } : { base: 1, terms: [] };

  const shape = columns / rows;
  const width = Math.round(shape > 1 ? SIDE : SIDE * shape);
  const height = Math.round(shape > 1 ? SIDE / shape : SIDE);
  /** @param {number} size */
  const waves = (size) => Array.from({ length: size }, (_, at) => Array.from({ length: 7 }, (_, n) => Math.cos((Math.PI / size) * (at + 0.5) * n)));
  const [across, down] = [waves(width), waves(height)];
  const rgba = new Uint8ClampedArray(width * height * 4);
  for (let y = 0, i = 0; y < height; y++)
    for (let x = 0; x < width; x++, i += 4) {
      /** @param {typeof l} channel */
      const value = (channel) => channel.terms.reduce((sum, term) => sum + term.weight * across[x][term.x] * down[y][term.y], channel.base);
      const light = value(l);
      const blue = light - (2 / 3) * value(p);
      const red = (3 * light - blue + value(q)) / 2;
      rgba.set([255 * red, 255 * (red - value(q)), 255 * blue, 255 * value(a)], i);
    }
  return { width, height, rgba };
}

/**
 * A ThumbHash as a `data:` URL of a tiny image.
 * @param {string} base64
 */
export function dataUrl(base64) {
  const image = decode(base64);
  if (!image) return undefined;
  const canvas = document.createElement("canvas");
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.getContext("2d")?.putImageData(new ImageData(image.rgba, image.width), 0, 0);
  return canvas.toDataURL();
}
