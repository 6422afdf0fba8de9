// The stand-in's images: landscapes in SVG, and the ThumbHash of their colours.

/** A small generator of numbers in 0..1. @param {number} seed */
function random(seed) {
  let state = (seed + 1) * 2654435761;
  return () => {
    state = Math.imul(state ^ (state >>> 15), 2246822519);
    state = Math.imul(state ^ (state >>> 13), 3266489917);
    return ((state ^= state >>> 16) >>> 0) / 2 ** 32;
  };
}

/** @param {number} h @param {number} s @param {number} l @returns {[number, number, number]} */
function rgb(h, s, l) {
  const part = (/** @type {number} */ n) => {
    const k = (n + h / 30) % 12;
    return l - s * Math.min(l, 1 - l) * Math.max(-1, Math.min(k - 3, 9 - k, 1));
  };
  return [part(0), part(8), part(4)];
}

/** @param {[number, number, number]} colour */
const hex = (colour) => `#${colour.map((part) => Math.round(part * 255).toString(16).padStart(2, "0")).join("")}`;

/** @param {number} seed */
function palette(seed) {
  const next = random(seed);
  const hue = next() * 360;
  const isNight = next() < 0.3;
  const sky = rgb(hue, 0.45, isNight ? 0.16 : 0.62 + next() * 0.2);
  const glow = rgb((hue + 150 + next() * 60) % 360, 0.6, isNight ? 0.4 : 0.78);
  const hills = [0, 1, 2, 3].map((at) => rgb((hue + 20 * at) % 360, 0.32, (isNight ? 0.22 : 0.5) - at * (isNight ? 0.045 : 0.1)));
  return { next, sky, glow, hills };
}

/**
 * @param {number} seed
 * @param {number} width
 * @param {number} height
 * @param {number} [blur]
 */
export function scene(seed, width, height, blur = 0) {
  const { next, sky, glow, hills } = palette(seed);
  const sun = { x: width * (0.2 + next() * 0.6), y: height * (0.2 + next() * 0.3), r: Math.min(width, height) * (0.05 + next() * 0.09) };
  const layers = hills.map((colour, at) => {
    const base = height * (0.5 + at * 0.13);
    const rough = height * (0.14 - at * 0.02);
    const points = Array.from({ length: 9 }, (_, i) => [(width * i) / 8, base + (next() - 0.5) * 2 * rough]);
    const curve = points.map(([x, y], i) => (i ? `S${x - width / 16} ${y} ${x} ${y}` : `M0 ${y}`)).join("");
    return `<path d="${curve}V${height}H0Z" fill="${hex(colour)}"/>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}"><defs><linearGradient id="s" x2="0" y2="1"><stop stop-color="${hex(sky)}"/><stop offset=".75" stop-color="${hex(glow)}"/></linearGradient><filter id="b"><feGaussianBlur stdDeviation="${blur}"/></filter></defs><g${blur ? ' filter="url(#b)"' : ""}><rect width="${width}" height="${height}" fill="url(#s)"/><circle cx="${sun.x}" cy="${sun.y}" r="${sun.r}" fill="#fff4e0" opacity=".85"/>${layers.join("")}</g></svg>`;
}

/** The ThumbHash of a scene's colours from top to bottom, in base64. @param {number} seed @param {number} width @param {number} height */
export function thumbHash(seed, width, height) {
  const { sky, glow, hills } = palette(seed);
  const column = [sky, sky, glow, hills[0], hills[1], hills[2], hills[3]];
  const [w, h] = width > height ? [24, Math.max(8, Math.round((24 * height) / width))] : [Math.max(8, Math.round((24 * width) / height)), 24];
  const channels = { l: /** @type {number[][]} */ ([]), p: /** @type {number[][]} */ ([]), q: /** @type {number[][]} */ ([]) };
  for (let y = 0; y < h; y++) {
    const at = (y / (h - 1)) * (column.length - 1);
    const low = Math.floor(at);
    const [r, g, b] = [0, 1, 2].map((i) => column[low][i] + ((column[low + 1] ?? column[low])[i] - column[low][i]) * (at - low));
    for (const [name, value] of /** @type {const} */ ([["l", (r + g + b) / 3], ["p", (r + g) / 2 - b], ["q", r - g]])) {
      channels[name].push(new Array(w).fill(value));
    }
  }
  const isWide = w > h;
  const count = Math.max(1, Math.round((7 * Math.min(w, h)) / Math.max(w, h)));
  const encode = (/** @type {number[][]} */ channel, /** @type {number} */ nx, /** @type {number} */ ny) => {
    const terms = [];
    let base = 0;
    let scale = 0;
    for (let cy = 0; cy < ny; cy++)
      for (let cx = 0; cx * ny < nx * (ny - cy); cx++) {
        let sum = 0;
        for (let y = 0; y < h; y++)
          for (let x = 0; x < w; x++) sum += channel[y][x] * Math.cos((Math.PI / w) * cx * (x + 0.5)) * Math.cos((Math.PI / h) * cy * (y + 0.5));
        sum /= w * h;
        if (cx || cy) {
          terms.push(sum);
          scale = Math.max(scale, Math.abs(sum));
        } else base = sum;
      }
    return { base, scale, terms: terms.map((term) => (scale ? 0.5 + (0.5 / scale) * term : 0.5)) };
  };
  const l = encode(channels.l, Math.max(3, isWide ? 7 : count), Math.max(3, isWide ? count : 7));
  const p = encode(channels.p, 3, 3);
  const q = encode(channels.q, 3, 3);
  const head = Math.round(63 * l.base) | (Math.round(31.5 + 31.5 * p.base) << 6) | (Math.round(31.5 + 31.5 * q.base) << 12) | (Math.round(31 * l.scale) << 18);
  const tail = count | (Math.round(63 * p.scale) << 3) | (Math.round(63 * q.scale) << 9) | (isWide ? 1 << 15 : 0);
  const bytes = [head & 255, (head >> 8) & 255, (head >> 16) & 255, tail & 255, tail >> 8];
  [...l.terms, ...p.terms, ...q.terms].forEach((term, at) => {
    const value = Math.round(15 * term);
    if (at % 2) bytes[bytes.length - 1] |= value << 4;
    else bytes.push(value);
  });
  return Buffer.from(bytes).toString("base64");
}
