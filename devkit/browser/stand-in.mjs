// A stand-in for the app: serves `web/` and a scripted API, so that each state of the page can be made.
// Strict: a request that the app would refuse is noted in `faults`, and a test with faults fails.
//   node devkit/browser/stand-in.mjs [PORT] [IMAGES]

import { createHash, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { scene, thumbHash } from "./scene.mjs";

const WEB = new URL("../../web/", import.meta.url);
const TYPES = /** @type {Record<string, string>} */ ({ html: "text/html; charset=utf-8", css: "text/css", js: "text/javascript", svg: "image/svg+xml" });

export const PROMPTS = [
  "A heron made of folded maps stands in a misty river at dawn, watercolour",
  "A red fox asleep in a hollow of fresh snow, soft blue shadows, early morning calm",
  "A lighthouse made of books on a basalt cliff, oil painting, storm light",
  "A street market under paper lanterns in the rain, reflections on wet cobblestones",
  "The hands of an old watchmaker at work, black and white, one small lamp",
  "مدينة من الزجاج بين أشجار عملاقة عند الغروب",
  "A night bus full of sleeping owls",
  "Ein Wal schwebt über einer schlafenden Hafenstadt, Mondlicht und silberne Wolken",
  "<img src=x onerror=alert(1)> in neon, on a brick wall",
  "A desert in bloom after rain, violet mountains, long shadows",
  "庭の苔に落ちる朝の光",
  "Overlapping circles of rust, teal and ivory, thick texture, quiet balance",
];
const SHAPES = [[1024, 1024], [1792, 1024], [1024, 1024], [1024, 1792], [1536, 1024], [1792, 1024], [1024, 1536]];
const SUGGESTIONS = [
  "A grandmother laughing in a sunlit kitchen full of flour dust, photo-realistic, shallow depth of field",
  "A city of glass bridges between enormous trees, concept art, golden hour, mist in the depths",
  "A whale drifting above a sleeping harbour town, dreamlike oil painting, moonlight and silver clouds",
  "Two herons made of folded maps, modern art, clean shapes, pale background, gentle sunlight",
];
const STYLES = ["Cinematic", "Oil painting", "Watercolor", "Photo-realistic", "Abstract", "Modern", "Black and white", "Anime", "Pixel art", "Isometric", "Line art", "Low poly", "Fantasy"];
const NOW = Date.now() - 60_000;

/** @typedef {(generation: Generation) => Promise<void>} Script
 * @typedef {{id: string, key?: string, body: any, events: [string, any][], ended: boolean, listeners: Set<() => void>, emit: (name: string, data: any) => void, accepted: () => void, isJob: boolean, cancelled: boolean}} Generation */

/** A plain generation: accepted, drawing, two previews, saving, image. @param {{ms?: number, previews?: number, estimate?: number}} [pace] @returns {Script} */
export const draws = ({ ms = 30, previews = 2, estimate = 20 } = {}) => async (generation) => {
  generation.accepted();
  generation.emit("progress", { phase: "drawing", elapsedSeconds: 0 });
  for (let at = 0; at < previews; at++) {
    await later(ms);
    generation.emit("preview", { index: at, image: preview(generation, 24 - 10 * at) });
  }
  await later(ms);
  generation.emit("progress", { phase: "saving", elapsedSeconds: estimate });
  generation.emit("image", null);
};
/** Draws until the test says otherwise. @param {number} [previews] @returns {Script} */
export const hangs = (previews = 0) => async (generation) => {
  generation.accepted();
  generation.emit("progress", { phase: "drawing", elapsedSeconds: 0 });
  for (let at = 0; at < previews; at++) generation.emit("preview", { index: at, image: preview(generation, 24 - 10 * at) });
};
/** @param {string} code @param {Record<string, any>} [more] @returns {Script} */
export const fails = (code, more = {}) => async (generation) => {
  generation.accepted();
  generation.emit("error", { status: 502, code, detail: `Detail of ${code}.`, invocationId: "0123456789abcdef", ...more });
};

/** @type {Map<string, string>} */
const placeholders = new Map();
/** @param {number} seed @param {number} width @param {number} height */
function placeholder(seed, width, height) {
  const key = `${seed} ${width} ${height}`;
  const known = placeholders.get(key) ?? thumbHash(seed, width, height);
  placeholders.set(key, known);
  return known;
}

const later = (/** @type {number} */ ms) => new Promise((resolve) => setTimeout(resolve, ms));
const preview = (/** @type {Generation} */ { body }, /** @type {number} */ blur) => {
  const [width, height] = (body.size ?? "1024x1024").split("x").map(Number);
  return `data:image/svg+xml;base64,${Buffer.from(scene(seedOf(body.prompt), width / 4, height / 4, blur / 4)).toString("base64")}`;
};
const seedOf = (/** @type {string} */ text) => createHash("sha256").update(text).digest().readUInt16BE();

/**
 * @param {{images?: number, port?: number, latency?: number}} [settings]
 */
export async function startStandIn({ images = 60, port = 0, latency = 0 } = {}) {
  /** What tests read and change. */
  const app = {
    url: "",
    blobs: "",
    /** @type {string[]} */ faults: [],
    /** @type {{method: string, path: string, headers: import("node:http").IncomingHttpHeaders}[]} */ requests: [],
    images: Array.from({ length: images }, (_, at) => stored(at)),
    /** @type {Map<string, any>} */ deleted: new Map(),
    /** @type {Map<string, Generation>} */ generations: new Map(),
    /** Images that were paid for. */
    paid: 0,
    quota: { limit: /** @type {number | null} */ (5), used: 1 },
    script: /** @type {Script} */ (draws()),
    /** Answers that a path's next requests get instead: `[status, code, headers?]`; `null` cuts the connection. @type {Map<string, ([number, string, Record<string, string>?] | null)[]>} */
    next: new Map(),
    /** The same for as long as it stands. @type {Map<string, [number, string, Record<string, string>?] | null>} */
    standing: new Map(),
    /** Links from before this number are refused, as expired ones are. */
    window: 1,
    options: options(),
    suggestions: SUGGESTIONS,
    latency,
    streams: 0,
    mostStreams: 0,
    account: /** @type {string | undefined} */ (undefined),
    /** Cuts every open stream. */
    cut: () => {},
    stop: async () => {},
  };
  let suggested = 0;
  /** @type {Set<import("node:http").ServerResponse>} */
  const open = new Set();
  app.cut = () => open.forEach((response) => response.destroy());

  /** @param {any} image */
  const listed = (image) => ({
    url: `${app.blobs}/i/${image.id}?w=${app.window}`,
    downloadUrl: `${app.blobs}/i/${image.id}?w=${app.window}&rscd=attachment`,
    thumbnailUrl: `${app.blobs}/t/${image.id}?w=${app.window}`,
    thumbnailWidth: Math.round(image.width / 4),
    thumbnailHeight: Math.round(image.height / 4),
    placeholder: placeholder(image.seed % 50, image.width, image.height),
    name: image.name,
    id: image.id,
    createdAt: image.createdAt,
    width: image.width,
    height: image.height,
    prompt: image.prompt.slice(0, 300),
  });
  /** @param {any} image */
  const details = (image) => ({
    ...listed(image),
    prompt: image.prompt,
    finalPrompt: image.finalPrompt ?? image.prompt,
    revisedPrompt: null,
    enhancement: image.finalPrompt ? "style" : "off",
    model: "gpt-image-1",
    size: `${image.width}x${image.height}`,
    quality: "standard",
    contentType: "image/png",
    bytes: 1_310_000,
  });

  /** @param {any} body @param {string | undefined} key @param {boolean} isJob */
  function begin(body, key, isJob) {
    const id = `2026-11-26-${randomUUID().replaceAll("-", "")}`;
    /** @type {Generation} */
    const generation = {
      id, key, body, events: [], ended: false, listeners: new Set(), isJob, cancelled: false,
      accepted: () => generation.emit("accepted", { id, statusUrl: `/api/generateImage/jobs/${id}`, name: body.prompt.slice(0, 300), quotaRemaining: app.quota.limit && app.quota.limit - app.quota.used, estimateSeconds: 20 }),
      emit: (name, data) => {
        if (generation.ended) return;
        if (name === "image") {
          const [width, height] = (body.size ?? "1024x1024").split("x").map(Number);
          const image = { id: `ffff${String(app.paid).padStart(4, "0")}${id.slice(-8)}`, seed: seedOf(body.prompt), prompt: body.prompt, finalPrompt: body.style ? `${body.prompt}, ${body.style}` : undefined, name: `${body.prompt.slice(0, 80)}_${NOW + app.paid}.png`, createdAt: new Date(NOW + 1000 + app.paid).toISOString(), width, height };
          if (data?.later) data = { code: "stored_later", name: image.name, detail: "Safe." };
          else {
            app.images.unshift(image);
            data = { ...details(image), deleteToken: `token-${image.id}` };
          }
        }
        if (name === "error") app.quota.used--;
        generation.ended = name === "image" || name === "error";
        generation.events.push([name, data]);
        generation.listeners.forEach((listener) => listener());
      },
    };
    app.generations.set(id, generation);
    app.paid++;
    app.quota.used++;
    generation.events.push(["progress", { phase: "queued", elapsedSeconds: 0 }]);
    app.script(generation);
    return generation;
  }

  /** @param {Generation} generation @param {import("node:http").ServerResponse} response */
  function stream(generation, response) {
    response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
    let sent = 0;
    open.add(response);
    app.mostStreams = Math.max(app.mostStreams, ++app.streams);
    const send = () => {
      for (; sent < generation.events.length; sent++) response.write(`event: ${generation.events[sent][0]}\ndata: ${JSON.stringify(generation.events[sent][1])}\n\n`);
      if (generation.ended) response.end();
    };
    const beat = setInterval(() => response.write(": still here\n\n"), 10_000);
    response.on("close", () => (open.delete(response), app.streams--, clearInterval(beat), generation.listeners.delete(send)));
    generation.listeners.add(send);
    send();
  }

  /** @param {Generation} generation */
  function view(generation) {
    const last = generation.events.at(-1);
    const phase = generation.events.filter(([name]) => name === "progress").at(-1)?.[1].phase ?? "queued";
    const status = generation.cancelled ? "cancelled" : generation.ended ? (last?.[0] === "image" ? "done" : "failed") : phase;
    return {
      id: generation.id, status, statusUrl: `/api/generateImage/jobs/${generation.id}`, elapsedSeconds: 0, estimateSeconds: 20,
      ...(generation.ended && !generation.cancelled && (last?.[0] === "image" ? { result: last[1] } : { problem: last?.[1] })),
    };
  }

  const server = createServer(async (request, response) => {
    const { method = "GET", headers } = request;
    const url = new URL(request.url ?? "/", "http://stand.in");
    const path = url.pathname;
    app.requests.push({ method, path: request.url ?? "", headers });
    /** @param {unknown} body @param {Record<string, string>} [more] @param {number} [status] */
    const json = (body, more = {}, status = 200) => response.writeHead(status, { "Content-Type": "application/json", "Cache-Control": "no-store", ...more }).end(JSON.stringify(body));
    /** @param {number} status @param {string} code @param {Record<string, string>} [more] */
    const problem = (status, code, more = {}) =>
      response.writeHead(status, { "Content-Type": "application/problem+json", ...(code && { "X-Error-Code": code }), ...more }).end(JSON.stringify({ status, code, detail: `Detail of ${code}.`, invocationId: "0123456789abcdef" }));
    const fault = (/** @type {string} */ words) => (app.faults.push(`${method} ${request.url}: ${words}`), problem(400, "invalid_request"));

    if (!path.startsWith("/api/") && !path.startsWith("/.auth/")) {
      const name = path === "/" ? "index.html" : path.slice(1);
      // The binary has the client beside the other files.
      const at = name === "client/visionary.js" ? `../${name}` : name;
      if (at === name && !/^[a-z.]+$/.test(name)) return fault("no such file");
      try {
        const body = stripped(name, readFileSync(new URL(at, WEB), "utf8"));
        return response.writeHead(200, {
          "Content-Type": TYPES[name.split(".").pop() ?? ""],
          "Cache-Control": "no-cache",
          "X-Content-Type-Options": "nosniff",
          "Referrer-Policy": "no-referrer",
          ...(name === "index.html" && { "Content-Security-Policy": policy(app.blobs) }),
        }).end(body);
      } catch {
        return fault("no such file");
      }
    }
    if (app.latency) await later(app.latency);
    const next = app.next.get(path);
    const planned = next?.length ? next.shift() : app.standing.get(path);
    if (planned === null) return request.socket.destroy();
    if (planned) return problem(...planned);
    if (path === "/api/options") return json(app.options, { "Cache-Control": "max-age=300" });
    // App Service authentication answers this path, and only when it is on.
    if (path === "/.auth/me" && app.options.signIn) return json(app.account ? [{ user_id: app.account, provider_name: "aad" }] : []);
    if (path === "/api/quota") {
      const { limit, used } = app.quota;
      if (limit === null) return json({ limit: null, used: null, remaining: null, resetsAt: null });
      return json({ limit, used, remaining: Math.max(0, limit - used), resetsAt: new Date(new Date().setUTCHours(24, 0, 0, 0)).toISOString() });
    }
    if (path === "/api/getChatGPTSuggestion") return response.writeHead(200, { "Content-Type": "text/plain; charset=utf-8", "X-Suggestion-Source": "built-in" }).end(app.suggestions[suggested++ % app.suggestions.length]);
    if (path === "/api/getImages") {
      const limit = Number(url.searchParams.get("limit"));
      if (!(limit >= 1 && limit <= 200)) return fault("limit");
      const cursor = url.searchParams.get("cursor");
      const from = cursor ? app.images.findIndex(({ id }) => id === cursor) + 1 : 0;
      if (cursor && !from) return fault("cursor");
      const page = app.images.slice(from, from + limit);
      const etag = `W/"${page[0]?.id}-${page.length}-${app.window}"`;
      if (headers["if-none-match"] === etag) return response.writeHead(304, { ETag: etag }).end();
      const next = from + limit < app.images.length ? `/api/getImages?limit=${limit}&cursor=${page.at(-1)?.id}` : undefined;
      return json({ imageUrls: page.map(listed), next }, { ETag: etag, "Cache-Control": "private, no-cache" });
    }
    const [, id, restore] = /^\/api\/images\/([0-9a-f-]+)(\/restore)?$/.exec(path) ?? [];
    if (id) {
      const image = app.images.find((one) => one.id === id);
      if (method !== "GET" && headers["x-delete-token"] !== `token-${id}`) return problem(403, "delete_token_refused");
      if (method === "POST" && restore) {
        const gone = app.deleted.get(id);
        if (!gone) return problem(404, "not_found");
        app.deleted.delete(id);
        app.images.splice(gone.at, 0, gone.image);
        return json(details(gone.image));
      }
      if (!image) return problem(404, "not_found");
      if (method === "GET") return json(details(image));
      if (method !== "DELETE") return fault("method");
      app.deleted.set(id, { image, at: app.images.indexOf(image) });
      app.images.splice(app.images.indexOf(image), 1);
      return json({ id, restorableUntil: new Date(Date.now() + 86_400_000).toISOString() });
    }
    const job = app.generations.get(/^\/api\/generateImage\/jobs\/(.+)$/.exec(path)?.[1] ?? "");
    if (job) {
      if (method === "DELETE") {
        if (job.events.some(([name, data]) => name === "progress" && data.phase !== "queued")) return problem(409, "job_has_begun");
        job.cancelled = job.ended = true;
        app.quota.used--;
        return json(view(job));
      }
      if (headers.accept?.includes("text/event-stream")) return stream(job, response);
      return json(view(job), job.ended ? {} : { "Retry-After": "1" });
    }
    if (path === "/api/generateImage" && method === "POST") {
      let text = "";
      for await (const chunk of request) text += chunk;
      const body = JSON.parse(text);
      const key = /** @type {string | undefined} */ (headers["idempotency-key"]);
      if (!key) return fault("no Idempotency-Key");
      if (typeof body.prompt !== "string" || !body.prompt.trim()) return fault("no prompt");
      for (const [name, allowed] of /** @type {const} */ ([["size", app.options.sizes], ["quality", app.options.qualities], ["style", app.options.styles]])) {
        if (body[name] !== undefined && !allowed.some((/** @type {any} */ one) => one.name === body[name])) return fault(`${name} ${body[name]}`);
      }
      if (body.enhance !== undefined && !app.options.enhancements.includes(body.enhance)) return fault("enhance");
      if (app.quota.limit !== null && app.quota.used >= app.quota.limit) return problem(429, "quota_exceeded", { "Retry-After": "3600" });
      const before = [...app.generations.values()].find((one) => one.key === key);
      const isJob = headers.prefer === "respond-async";
      if (before) {
        if (JSON.stringify(before.body) !== JSON.stringify(body)) return fault("a key with another body");
        if (!before.ended && !isJob) return problem(409, "in_progress", { "Retry-After": "1" });
        if (!isJob) return before.events.at(-1)?.[0] === "image" ? json(before.events.at(-1)?.[1]) : problem(502, before.events.at(-1)?.[1].code);
      }
      const generation = before ?? begin(body, key, isJob);
      if (isJob) return json(view(generation), { Location: `/api/generateImage/jobs/${generation.id}`, "Retry-After": "1" }, 202);
      return stream(generation, response);
    }
    return fault("no such function");
  });
  // Storage is another origin, as in production.
  const storage = createServer((request, response) => {
    const url = new URL(request.url ?? "/", "http://stand.in");
    const [, kind, id] = /^\/([it])\/([0-9a-f-]+)$/.exec(url.pathname) ?? [];
    const image = app.images.find((one) => one.id === id);
    if (!image) return response.writeHead(404).end();
    if (Number(url.searchParams.get("w")) < app.window) return response.writeHead(403).end();
    const scale = kind === "t" ? 4 : 1;
    response.writeHead(200, { "Content-Type": "image/svg+xml", "Cache-Control": "max-age=3600", ...(url.searchParams.has("rscd") && { "Content-Disposition": "attachment" }) }).end(scene(image.seed, image.width / scale, image.height / scale));
  });
  const listen = (/** @type {import("node:http").Server} */ one, /** @type {number} */ at) => new Promise((resolve) => one.listen(at, "127.0.0.1", () => resolve(/** @type {any} */ (one.address()).port)));
  app.url = `http://127.0.0.1:${await listen(server, port)}`;
  app.blobs = `http://127.0.0.1:${await listen(storage, 0)}`;
  app.stop = async () => {
    for (const one of [server, storage]) {
      one.close();
      one.closeAllConnections();
    }
  };
  return app;
}

/** An image of the gallery, the newest first. @param {number} at */
function stored(at) {
  const [width, height] = SHAPES[(at * 5) % SHAPES.length];
  const prompt = PROMPTS[at % PROMPTS.length];
  const ms = NOW - at * 4_000_000;
  return { id: `${String(9999999 - at)}${createHash("sha256").update(String(at)).digest("hex").slice(0, 12)}`, seed: at, prompt, finalPrompt: /** @type {string | undefined} */ (at % 3 ? undefined : `${prompt}, 4k, studio lighting, cinematic`), name: `${prompt}_${ms}.png`, createdAt: new Date(ms).toISOString(), width, height };
}

function options() {
  return {
    sizes: [
      { name: "1024x1024", width: 1024, height: 1024, isDefault: true },
      { name: "1024x1792", width: 1024, height: 1792 },
      { name: "1792x1024", width: 1792, height: 1024 },
    ],
    qualities: [{ name: "standard", isDefault: true }, { name: "hd" }],
    formats: ["png"],
    enhancements: ["off", "style", "rewrite"],
    defaultEnhancement: "off",
    styles: STYLES.map((title) => ({ name: title.toLowerCase().replaceAll(" ", "-"), title })),
    variations: [1, 2, 4],
    jobs: true,
    signIn: false,
    maxPromptCharacters: 4000,
  };
}

/**
 * A file of `web/` as the binary has it: without comments and indentation.
 * @param {string} name
 * @param {string} text
 */
export function stripped(name, text) {
  const lines = text.replace(name.endsWith(".html") ? /<!--[^]*?-->/g : /\/\*[^]*?\*\/ ?/g, "").split("\n");
  return lines.map((line) => line.trim()).filter((line) => line && !line.startsWith("//")).join("\n");
}

/** The page's content security policy. @param {string} blobs */
export const policy = (blobs) =>
  `default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: ${blobs}; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'`;

if (process.argv[1]?.endsWith("stand-in.mjs")) {
  const app = await startStandIn({ port: Number(process.argv[2] ?? 8080), images: Number(process.argv[3] ?? 60) });
  app.script = draws({ ms: 2000 });
  console.log(app.url);
}
