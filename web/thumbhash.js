// Decodes a ThumbHash: some 25 bytes that hold the first cosine terms of an image's brightness (l) and of its
// yellow-blue (p) and red-green (q) difference. Format: https://evanw.github.io/thumbhash/

/** The longer side of the decoded image; the browser smooths it. */
const SIDE = 16;

/**
 * @param {string} base64
 * @returns {{width: number, height: number, rgb: Uint8ClampedArray} | undefined} nothing for a text that is no
 *   ThumbHash, and for an image with transparent parts
 */
export function decode(base64) {
  /** @type {number[]} */
  let bytes;
  try {
    bytes = Array.from(atob(base64), (character) => character.charCodeAt(0));
  } catch {
    return undefined;
  }
  const head = bytes[0] | (bytes[1] << 8) | (bytes[2] << 16);
  const tail = bytes[3] | (bytes[4] << 8);
  if (bytes.length < 5 || head >> 23) return undefined;
  const isWide = tail >> 15 === 1;
  const count = tail & 7;
  const [columns, rows] = [Math.max(3, isWide ? 7 : count), Math.max(3, isWide ? count : 7)];

  // After the head: half a byte for each term, the low half first.
  let half = 10;
  /** @param {number} base @param {number} across @param {number} down @param {number} scale */
  const channel = (base, across, down, scale) => {
    const terms = [];
    for (let y = 0; y < down; y++)
      for (let x = y ? 0 : 1; x * down < across * (down - y); x++, half++) {
        const value = (bytes[half >> 1] >> ((half & 1) * 4)) & 15;
        terms.push({ x, y, weight: 2 * scale * (value / 7.5 - 1) });
      }
    return { base, terms };
  };
  const l = channel((head & 63) / 63, columns, rows, ((head >> 18) & 31) / 31);
  const p = channel(((head >> 6) & 63) / 31.5 - 1, 3, 3, (((tail >> 3) & 63) / 63) * 1.25);
  const q = channel(((head >> 12) & 63) / 31.5 - 1, 3, 3, (((tail >> 9) & 63) / 63) * 1.25);

  const shape = columns / rows;
  const width = Math.round(Math.min(SIDE, SIDE * shape));
  const height = Math.round(Math.min(SIDE, SIDE / shape));
  /** @param {number} size */
  const waves = (size) => Array.from({ length: size }, (_, at) => Array.from({ length: 7 }, (_, n) => Math.cos((Math.PI / size) * (at + 0.5) * n)));
  const [across, down] = [waves(width), waves(height)];
  const rgb = new Uint8ClampedArray(width * height * 3);
  for (let y = 0, i = 0; y < height; y++)
    for (let x = 0; x < width; x++, i += 3) {
      /** @param {typeof l} channel */
      const value = ({ base, terms }) => terms.reduce((sum, term) => sum + term.weight * across[x][term.x] * down[y][term.y], base);
      const light = value(l);
      const green = value(q);
      const blue = light - (2 / 3) * value(p);
      const red = (3 * light - blue + green) / 2;
      rgb[i] = 255 * red;
      rgb[i + 1] = 255 * (red - green);
      rgb[i + 2] = 255 * blue;
    }
  return { width, height, rgb };
}

/**
 * A ThumbHash as a `data:` URL: a bitmap, because a canvas would take ten times as long to write one.
 * @param {string} base64
 */
export function dataUrl(base64) {
  const image = decode(base64);
  if (!image) return undefined;
  const { width, height, rgb } = image;
  const file = new DataView(new ArrayBuffer(54 + width * height * 4));
  // The file header, then the BITMAPINFOHEADER: a negative height means that the first row is the top one.
  file.setUint16(0, 0x424d);
  for (const [at, value] of [[2, file.byteLength], [10, 54], [14, 40], [18, width], [22, -height], [26, 1 | (32 << 16)]]) file.setInt32(at, value, true);
  // A pixel is blue, green, red, and a byte that is not used.
  rgb.forEach((value, at) => file.setUint8(54 + Math.floor(at / 3) * 4 + 2 - (at % 3), value));
  return `data:image/bmp;base64,${btoa(String.fromCharCode(...new Uint8Array(file.buffer)))}`;
}
