// A client of Visionary's API. This module needs no DOM and no package: it runs in browsers and in Node.js 20.
// The page of Visionary uses it, too.

/**
 * The types of the wire, generated from openapi.yaml.
 * @typedef {import("./wire.d.ts").components["schemas"]} Wire
 */
/**
 * What to draw. Which names are allowed depends on the app: see `options`.
 * @typedef {{[K in keyof Wire["GenerateImageRequest"]]: NonNullable<Wire["GenerateImageRequest"][K]> extends string
 *   ? string : NonNullable<Wire["GenerateImageRequest"][K]>}} GenerateImageRequest
 */
/** @typedef {Wire["GeneratedImage"]} GeneratedImage the image that `generate` ends with */
/** @typedef {Wire["ListedImage"]} ListedImage an image of the gallery */
/** @typedef {Wire["ImageDetails"]} ImageDetails all that is public of an image */
/** @typedef {Wire["Options"]} Options */
/** @typedef {Wire["Quota"]} Quota */
/** @typedef {Wire["Style"]} Style */
/** @typedef {Wire["ContainerToken"]} ContainerToken */
/** @typedef {Wire["Job"]} Job */
/** @typedef {Wire["Problem"]} Problem */
/**
 * A code of the API; `connection` if the app gave no answer; `unknown` if the answer has no code, such as a 401 for a
 * missing function key. A later version of the app may have more.
 * @typedef {Wire["ErrorCode"] | "connection" | "unknown" | (string & {})} ErrorCode
 */
/**
 * What `generate` yields.
 * - `accepted`: the generation has an address. Keep `statusUrl`: it leads to the image for 24 hours.
 * - `progress`: the generation is `queued`, `drawing` or `saving`.
 * - `preview`: an unfinished image, as a data URL.
 * - `image`: the image; the last event.
 * - `storedLater`: the image is safe, and will be listed by this name when storage is back; the last event.
 * - `waiting`: the connection is lost, or the app is busy (`code`); the client tries again after `seconds`.
 * @typedef {{type: "accepted", id: string, statusUrl: string, estimateSeconds: number | null, quotaRemaining?: number | null, isJob?: boolean}
 *   | ({type: "progress"} & Wire["ProgressEvent"])
 *   | ({type: "preview"} & Wire["PreviewEvent"])
 *   | {type: "image", image: GeneratedImage}
 *   | {type: "storedLater", name: string}
 *   | {type: "waiting", code: ErrorCode, seconds: number}} GenerationEvent
 */
/** @typedef {GenerationEvent | {type: "problem", problem: Partial<Problem>} | {type: "poll", seconds: number}} RawEvent */
/** @typedef {(ms: number, signal?: AbortSignal) => Promise<void>} Sleep */

const EVENTS = "text/event-stream";
const JSON_TYPE = "application/json";
/** Ends a call that gives no answer. */
const CALL_MS = 30_000;
/** Ends an attempt of a generation that got no headers. The app answers within 215 s, and Azure ends a request after 230 s. */
const HEADERS_MS = 240_000;
/** The app sends a comment every 10 s, so a stream that is silent for longer is lost. */
const SILENCE_MS = 35_000;
/** Refused attempts of one generation, each after the wait that the app asks for. */
const ATTEMPTS = 40;

/** An answer that is no success, or none. */
export class ApiError extends Error {
  /**
   * @param {ErrorCode} code
   * @param {string} [detail]
   * @param {{status?: number, retryAfter?: number, categories?: string[], invocationId?: string}} [more]
   */
  constructor(code, detail = "", more = {}) {
    super(detail || code);
    this.name = "ApiError";
    this.code = code;
    /** A sentence for the user, by the app. It may be empty. */
    this.detail = detail;
    /** The HTTP status; 0 without one. */
    this.status = more.status ?? 0;
    /** The seconds after which another attempt makes sense, if the app says so. */
    this.retryAfter = more.retryAfter;
    /** Why the provider's moderation refused a prompt. */
    this.categories = more.categories ?? [];
    /** Names the request in the app's log. */
    this.invocationId = more.invocationId;
  }
}

/** @type {Sleep} */
const pause = (ms, signal) =>
  new Promise((resolve, reject) => {
    // An aborted signal has no event any more.
    signal?.throwIfAborted();
    const stop = () => (clearTimeout(timer), reject(signal?.reason));
    const timer = setTimeout(() => (signal?.removeEventListener("abort", stop), resolve()), ms);
    signal?.addEventListener("abort", stop);
  });

/** A random `Idempotency-Key`. `randomUUID` exists in secure contexts only. */
export function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * @param {{base?: string, headers?: Record<string, string>, fetch?: typeof globalThis.fetch, sleep?: Sleep}} [settings]
 *   `base`: the app's origin, such as `https://contoso.azurewebsites.net`; without it, the page's own.
 *   `headers`: sent with each request, such as `{"x-functions-key": key}`.
 */
export function createClient({ base = "", headers, fetch = (...call) => globalThis.fetch(...call), sleep = pause } = {}) {
  /**
   * @param {string} path
   * @param {RequestInit} request
   */
  async function send(path, request) {
    let response;
    try {
      response = await fetch(base + path, { ...request, headers: { ...headers, .../** @type {Record<string, string>} */ (request.headers) } });
    } catch {
      throw new ApiError("connection");
    }
    if (response.ok || response.status === 304) return response;
    throw await failure(response);
  }

  /**
   * @param {string} path
   * @param {RequestInit} [request]
   */
  const call = (path, request) =>
    send(path, { ...request, signal: AbortSignal.timeout(CALL_MS), headers: { Accept: JSON_TYPE, ...request?.headers } });

  /**
   * The JSON of an answer.
   * @param {string} path
   * @param {RequestInit} [request]
   */
  const get = async (path, request) => body(await call(path, request));

  /** @param {string} id */
  const imagePath = (id) => `/api/images/${encodeURIComponent(id)}`;

  /**
   * A page of the gallery, newest first; `null` if it still has this ETag.
   * @param {{page?: string, limit?: number, etag?: string}} [which] `page` is the `next` of another page
   * @returns {Promise<{images: ListedImage[], next?: string, etag?: string} | null>}
   */
  async function list({ page, limit = 60, etag } = {}) {
    const path = page?.startsWith("/api/getImages?") ? page : `/api/getImages?limit=${limit}`;
    const response = await call(path, { headers: etag ? { "If-None-Match": etag } : {} });
    if (response.status === 304) return null;
    const { imageUrls, next } = await body(response);
    return { images: imageUrls, next, etag: response.headers.get("ETag") ?? undefined };
  }

  return {
    list,
    /** All images, newest first, page by page. @returns {AsyncGenerator<ListedImage>} */
    async *images() {
      for (let page; ; ) {
        const answer = await list({ page, limit: 200 });
        yield* answer?.images ?? [];
        page = answer?.next;
        if (!page) return;
      }
    },
    /** What a request for an image may ask for. @returns {Promise<Options>} */
    options: () => get("/api/options"),
    /** The style presets. @returns {Promise<Style[]>} */
    styles: async () => (await get("/api/styles")).styles,
    /** What the caller may draw today. @returns {Promise<Quota>} */
    quota: () => get("/api/quota"),
    /** A token for the container; it needs a function key in `headers`. @returns {Promise<ContainerToken>} */
    token: () => get("/api/generateSASToken"),
    /**
     * An idea for a prompt.
     * @param {{style?: string, about?: string}} [choices]
     */
    suggestion: async (choices = {}) => {
      const query = new URLSearchParams();
      for (const [name, value] of Object.entries(choices)) if (value) query.set(name, value);
      return (await (await call(`/api/getChatGPTSuggestion?${query}`, { headers: { Accept: "text/plain" } })).text()).trim();
    },
    /** @param {string} id @returns {Promise<ImageDetails>} */
    details: (id) => get(imagePath(id)),
    /**
     * Deletes an image.
     * @param {string} id
     * @param {string} token the `deleteToken` of the `image` event
     * @returns {Promise<Wire["DeletedImage"]>}
     */
    remove: (id, token) => get(imagePath(id), { method: "DELETE", headers: { "X-Delete-Token": token } }),
    /** Brings a deleted image back. @param {string} id @param {string} token @returns {Promise<ImageDetails>} */
    restore: (id, token) => get(`${imagePath(id)}/restore`, { method: "POST", headers: { "X-Delete-Token": token } }),
    /** The state of a generation. @param {string} statusUrl @returns {Promise<Job>} */
    job: (statusUrl) => get(statusUrl),
    /** Cancels a job that has not begun. @param {string} statusUrl @returns {Promise<Job>} */
    cancel: (statusUrl) => get(statusUrl, { method: "DELETE" }),
    /**
     * The user who is signed in, if App Service authentication is on.
     * @returns {Promise<string | undefined>}
     */
    account: async () => (await get("/.auth/me"))[0]?.user_id,

    /**
     * Draws an image, or goes on with one. Ends after `image` or `storedLater`; throws an ApiError if
     * there will be no image. A lost connection is taken up again, without end but for `signal`: at `statusUrl`
     * once that is known, before by the same request with the same key, so nothing is paid twice.
     * @param {GenerateImageRequest} what
     * @param {{key?: string, statusUrl?: string, way?: "events" | "job" | "polledJob", signal?: AbortSignal}} [how]
     *   `key`: the `Idempotency-Key`; one for each image, and the same to go on after a reload.
     *   `statusUrl`: that of `accepted`, to go on with a generation.
     *   `way`: the events of a request, those of a job, which outlives the process, or a job that is asked for its
     *   state, which needs no open connection.
     * @returns {AsyncGenerator<GenerationEvent>}
     */
    async *generate(what, { key = newKey(), statusUrl, way = "events", signal } = {}) {
      for (let lost = 0, refused = 0; ; ) {
        const accept = way === "polledJob" ? JSON_TYPE : EVENTS;
        const isPost = !statusUrl;
        /** The failure that ends the generation. @type {ApiError | undefined} */
        let end;
        signal?.throwIfAborted();
        const attempt = new AbortController();
        const stop = () => attempt.abort();
        const timer = setTimeout(stop, HEADERS_MS);
        signal?.addEventListener("abort", stop);
        try {
          const response = await (statusUrl
            ? send(statusUrl, { headers: { Accept: accept }, signal: attempt.signal })
            : send("/api/generateImage", {
                method: "POST",
                headers: {
                  "Content-Type": JSON_TYPE,
                  "Idempotency-Key": key,
                  ...(way === "events" ? { Accept: EVENTS } : { Accept: JSON_TYPE, Prefer: "respond-async" }),
                },
                body: JSON.stringify(what),
                signal: attempt.signal,
              })
          ).finally(() => clearTimeout(timer));
          for await (const event of events(response)) {
            lost = 0;
            if (event.type === "problem") throw (end = problem(event.problem));
            if (event.type === "poll") {
              // The answer to an accepted POST: the events are at `statusUrl`. Otherwise the app or its
              // host does not stream.
              if (!isPost || way === "polledJob") await sleep(event.seconds * 1000, signal);
              continue;
            }
            if (event.type === "accepted") statusUrl = event.statusUrl ?? statusUrl;
            yield event;
            if (event.type === "image" || event.type === "storedLater") return;
          }
          // A stream ends after 9 minutes, and when its process stops.
          if (isPost && !statusUrl) throw new ApiError("connection");
          await sleep(200, signal);
        } catch (error) {
          signal?.throwIfAborted();
          if (error === end || !(error instanceof ApiError)) throw error;
          // Azure's Flex plan answers a streamed POST of a signed-in caller with a 500 of its own.
          if (isPost && way === "events" && error.status === 500 && error.code === "connection") {
            way = "job";
            continue;
          }
          const isLost = error.code === "connection" || (!isPost && error.status >= 500);
          const isEarly = error.code === "busy" || error.code === "in_progress";
          if (!isLost && (!isEarly || ++refused > ATTEMPTS)) throw error;
          const seconds = isLost ? Math.min(15, 2 ** lost++) : Math.min(60, error.retryAfter ?? 3);
          yield { type: "waiting", code: error.code, seconds };
          await sleep(seconds * 1000, signal);
        } finally {
          signal?.removeEventListener("abort", stop);
        }
      }
    },
  };
}
/** @typedef {ReturnType<typeof createClient>} Client */

/** @param {Response} response */
const body = (response) =>
  response.json().catch(() => {
    throw new ApiError("connection");
  });

/** @param {Response} response */
async function failure(response) {
  const document = await response.json().catch(() => ({}));
  const retryAfter = Number(response.headers.get("Retry-After")) || undefined;
  const code = response.headers.get("X-Error-Code") || document.code;
  // A failure without a code is not the app's: its host or a proxy cannot reach it.
  if (!code && response.status >= 500) return new ApiError("connection", "", { status: response.status, retryAfter });
  return problem({ ...document, code: code || "unknown", status: response.status }, retryAfter);
}

/**
 * @param {any} document a problem document
 * @param {number} [retryAfter]
 */
function problem({ code, detail, status, categories, invocationId }, retryAfter) {
  return new ApiError(code ?? "unknown", detail, { status, retryAfter, categories, invocationId });
}

/**
 * The events of an answer: of a stream, or what a JSON answer says as events.
 * @param {Response} response
 * @returns {AsyncGenerator<RawEvent>}
 */
async function* events(response) {
  if (response.headers.get("Content-Type")?.startsWith(EVENTS)) {
    for await (const { name, data } of serverSentEvents(response)) {
      if (name === "image") yield ended(data);
      else if (name === "error") yield { type: "problem", problem: data };
      else if (name === "accepted" || name === "progress" || name === "preview") yield { ...data, type: name };
    }
    return;
  }
  const answer = await body(response);
  if (!answer.status) return yield ended(answer);
  yield { type: "accepted", ...answer, isJob: true };
  if (answer.result) yield ended(answer.result);
  else if (answer.problem) yield { type: "problem", problem: answer.problem };
  else if (answer.status === "cancelled") yield { type: "problem", problem: { code: "job_cancelled" } };
  else {
    yield { type: "progress", phase: answer.status, elapsedSeconds: answer.elapsedSeconds ?? 0 };
    yield { type: "poll", seconds: Number(response.headers.get("Retry-After")) || 2 };
  }
}

/** @param {any} image @returns {GenerationEvent} */
function ended(image) {
  return image.code === "stored_later" ? { type: "storedLater", name: image.name } : { type: "image", image };
}

/**
 * Reads a stream of server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).
 * @param {Response} response
 */
async function* serverSentEvents(response) {
  if (!response.body) throw new ApiError("connection");
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  try {
    for (;;) {
      /** @type {ReturnType<typeof setTimeout> | undefined} */
      let timer;
      const silence = new Promise((_, reject) => (timer = setTimeout(() => reject(new ApiError("connection")), SILENCE_MS)));
      const { value, done } = await Promise.race([reader.read(), /** @type {Promise<never>} */ (silence)]).finally(() =>
        clearTimeout(timer),
      );
      if (done) return;
      const blocks = (buffer + value).replaceAll("\r\n", "\n").split("\n\n");
      buffer = blocks.pop() ?? "";
      for (const block of blocks) {
        let name = "message";
        const data = [];
        for (const line of block.split("\n")) {
          if (line.startsWith("event:")) name = line.slice(6).trim();
          else if (line.startsWith("data:")) data.push(line.slice(5));
        }
        if (data.length) yield { name, data: JSON.parse(data.join("\n")) };
      }
    }
  } catch (error) {
    // A stream that breaks off is a TypeError in every browser, with another sentence in each.
    if (error instanceof TypeError || error instanceof SyntaxError) throw new ApiError("connection");
    throw error;
  } finally {
    reader.cancel().catch(() => {});
  }
}
