// The generations of this browser: at most three as streams, the rest as jobs. What runs is kept in
// the browser's storage, so that a page that is loaded again goes on with it.

import { ApiError, createClient, newKey } from "../client/visionary.js";
import { recall, remember } from "./memory.js";
import { reachable, report } from "./status.js";

/**
 * @typedef {import("../client/visionary.js").GenerateImageRequest} Body
 * @typedef {{key: string, body: Body, startedAt: number, ratio: number, statusUrl?: string, isJob?: boolean}} Kept
 */

/** HTTP/1.1 gives a page six connections, and streams must leave some for images and calls. */
const STREAMS = 3;
/** The app knows an idempotency key for 24 hours; a later request would be paid again. */
const KEPT_MS = 23 * 3_600_000;

/** Sleeps, but not beyond the moment at which the network or the page is back. @type {import("../client/visionary.js").Sleep} */
const sleep = (ms, signal) =>
  new Promise((resolve, reject) => {
    const ends = new AbortController();
    const wake = () => (ends.abort(), clearTimeout(timer), resolve());
    const timer = setTimeout(wake, ms);
    if (ms > 500) {
      addEventListener("online", wake, { signal: ends.signal });
      document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && wake(), { signal: ends.signal });
    }
    signal?.addEventListener("abort", () => (ends.abort(), clearTimeout(timer), reject(signal.reason)), { signal: ends.signal });
  });

export const client = createClient({ sleep });

let streams = 0;
/** What may be a stream as soon as another one has ended. @type {((go?: unknown) => void)[]} */
let queue = [];
/** Set from the options of the app. */
export const ways = { hasJobs: true, signIn: false };

/** @param {(kept: Record<string, Kept>) => void} change */
function keep(change) {
  const kept = recall("pending", /** @type {Record<string, Kept>} */ ({}));
  change(kept);
  remember("pending", kept);
}

/** One image on its way. `onchange` hears of each event; the fields are the state after it. */
export class Generation {
  phase = "sending";
  /** The code of what it waits for, such as `busy`. @type {string | undefined} */
  waits;
  /** @type {number | undefined} */
  estimate;
  /** @type {string | undefined} */
  preview;
  /** @type {(what: "progress" | "accepted" | "preview" | "image" | "storedLater" | "failed" | "dropped") => void} */
  onchange = () => {};
  /** @type {import("../client/visionary.js").GeneratedImage | undefined} */
  image;
  /** The name under which an image will be listed that is stored later. @type {string | undefined} */
  storedAs;
  /** @type {ApiError | undefined} */
  error;
  /** @type {number | undefined} */
  quotaRemaining;
  #isSent = false;
  #ends = new AbortController();

  /** @param {Kept} kept */
  constructor(kept) {
    this.kept = kept;
  }

  get prompt() {
    return this.kept.body.prompt;
  }

  get elapsed() {
    return Math.max(0, Math.floor((Date.now() - this.kept.startedAt) / 1000));
  }

  /** A job that has not begun can be cancelled, and what the app has not accepted can be dropped. */
  get canCancel() {
    const { isJob, statusUrl } = this.kept;
    return (isJob && this.phase === "queued") || !this.#isSent || (this.waits && !statusUrl);
  }

  async run() {
    if (Date.now() - this.kept.startedAt > KEPT_MS) return this.#fail(new ApiError("expired"));
    keep((kept) => (kept[this.kept.key] = this.kept));
    let isStream = streams < STREAMS;
    try {
      if (!isStream && !ways.hasJobs && !this.kept.statusUrl) {
        this.phase = "queued";
        this.onchange("progress");
        await new Promise((resolve, reject) => {
          queue.push(resolve);
          this.#ends.signal.addEventListener("abort", () => {
            queue = queue.filter((other) => other !== resolve);
            reject(this.#ends.signal.reason);
          });
        });
        isStream = true;
      }
      if (isStream) streams++;
      this.#isSent = true;
      await this.#follow(isStream ? (ways.signIn ? "job" : "events") : "polledJob");
    } catch (error) {
      if (this.#ends.signal.aborted) return;
      this.#fail(error instanceof ApiError ? error : new ApiError("unknown", String(error)));
    } finally {
      if (isStream) {
        streams--;
        queue.shift()?.();
      }
    }
  }

  /** @param {"events" | "job" | "polledJob"} way */
  async #follow(way) {
    const { key, body, statusUrl } = this.kept;
    for await (const event of client.generate(body, { key, statusUrl, way, signal: this.#ends.signal })) {
      this.waits = event.type === "waiting" ? event.code : undefined;
      if (event.type === "waiting") report(new ApiError(event.code));
      else reachable();
      if (event.type === "accepted") {
        this.kept.isJob ||= event.isJob;
        this.estimate = event.estimateSeconds ?? undefined;
        this.quotaRemaining = event.quotaRemaining ?? undefined;
        this.kept.statusUrl = event.statusUrl;
        keep((kept) => (kept[key] = this.kept));
      } else if (event.type === "progress") this.phase = event.phase;
      else if (event.type === "preview") this.preview = event.image;
      else if (event.type === "image") this.image = event.image;
      else if (event.type === "storedLater") this.storedAs = event.name;
      if (event.type === "image" || event.type === "storedLater") this.#forget();
      this.onchange(event.type === "waiting" ? "progress" : event.type);
    }
  }

  /** @param {ApiError} error */
  #fail(error) {
    this.#forget();
    this.error = error;
    this.onchange("failed");
  }

  #forget() {
    keep((kept) => delete kept[this.kept.key]);
  }

  async cancel() {
    const { statusUrl } = this.kept;
    if (statusUrl) await client.cancel(statusUrl);
    this.#ends.abort();
    this.#forget();
    this.onchange("dropped");
  }
}

/**
 * @param {Body} body
 * @param {number} ratio width by height
 */
export function start(body, ratio) {
  return new Generation({ key: newKey(), body, ratio, startedAt: Date.now() });
}

/** What ran when the page was left, the oldest first. */
export function unfinished() {
  const kept = Object.values(recall("pending", /** @type {Record<string, Kept>} */ ({})));
  return kept.sort((one, other) => one.startedAt - other.startedAt).map((one) => new Generation(one));
}
