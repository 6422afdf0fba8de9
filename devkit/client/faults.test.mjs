// The client against a scripted app that fails, refuses and cuts connections.

import assert from "node:assert/strict";
import { test } from "node:test";
import { ApiError, createClient } from "../../client/visionary.js";
import { draws, fails, hangs, startStandIn } from "../browser/stand-in.mjs";

/** @typedef {import("../../client/visionary.js").GenerationEvent} GenerationEvent */
/** @typedef {Awaited<ReturnType<typeof startStandIn>>} App */

/**
 * Runs a test with a scripted app and a client of it, whose waits take no time and are noted in `waits`, in seconds.
 * @param {(with_: {app: App, client: import("../../client/visionary.js").Client, waits: number[]}) => Promise<unknown>} act
 */
async function withApp(act) {
  const app = await startStandIn({ images: 430 });
  /** @type {number[]} */
  const waits = [];
  const client = createClient({ base: app.url, sleep: async (ms) => void waits.push(ms / 1000) });
  try {
    await act({ app, client, waits });
    assert.deepEqual(app.faults, []);
  } finally {
    await app.stop();
  }
}

/** @param {AsyncIterable<GenerationEvent>} events @param {(event: GenerationEvent) => unknown} [on] */
async function collected(events, on) {
  const all = [];
  for await (const event of events) {
    all.push(event);
    await on?.(event);
  }
  return all;
}
/** @param {GenerationEvent[]} events */
const types = (events) => events.map(({ type }) => type);
/** @param {Partial<ApiError>} wanted */
const refused = (wanted) => (/** @type {unknown} */ error) => {
  assert.ok(error instanceof ApiError, String(error));
  for (const [name, value] of Object.entries(wanted)) assert.deepEqual(/** @type {any} */ (error)[name], value, name);
  return true;
};
/** The paths of what was asked, with the methods. @param {App} app */
const asked = (app) => app.requests.map(({ method, path }) => `${method} ${path.replace(/[0-9a-f]{32}$/, "ID")}`);

test("a_cut_stream_goes_on_at_the_address_of_its_generation_and_is_paid_once", () =>
  withApp(async ({ app, client, waits }) => {
    app.script = hangs(1);
    const events = await collected(client.generate({ prompt: "A fox" }), ({ type }) => {
      if (type === "waiting") app.generations.forEach((generation) => generation.emit("image", null));
      if (type === "preview" && !waits.length) app.cut();
    });
    assert.deepEqual(types(events).slice(0, 5), ["progress", "accepted", "progress", "preview", "waiting"]);
    assert.equal(events.at(-1)?.type, "image");
    assert.equal(app.paid, 1);
    assert.deepEqual(waits, [1]);
    assert.match(asked(app).join(), /^POST \/api\/generateImage,GET \/api\/generateImage\/jobs\/2026-11-26-ID$/);
  }));

test("a_stream_that_is_cut_before_it_has_an_address_is_asked_for_again_with_the_same_key", () =>
  withApp(async ({ app, client }) => {
    app.script = async () => {};
    const events = await collected(client.generate({ prompt: "A fox" }, { key: "my-key" }), (event) => {
      if (event.type === "progress") app.cut();
      if (event.type === "waiting" && event.code === "in_progress") app.generations.forEach((generation) => generation.emit("image", null));
    });
    assert.deepEqual(events.map((event) => (event.type === "waiting" ? event.code : event.type)), ["progress", "connection", "in_progress", "image"]);
    assert.deepEqual(new Set(app.requests.map(({ headers }) => headers["idempotency-key"])), new Set(["my-key"]));
    assert.equal(app.paid, 1);
  }));

test("a_page_that_was_reloaded_goes_on_with_the_address_alone", () =>
  withApp(async ({ app, client }) => {
    app.script = hangs();
    let statusUrl = "";
    for await (const event of client.generate({ prompt: "A fox" })) {
      if (event.type === "accepted") statusUrl = event.statusUrl;
      if (event.type === "progress" && event.phase === "drawing") break;
    }
    setTimeout(() => app.generations.forEach((generation) => generation.emit("image", null)), 50);
    const events = await collected(client.generate({ prompt: "A fox" }, { statusUrl }));
    assert.equal(events.at(-1)?.type, "image");
    assert.equal(app.paid, 1);
  }));

test("a_busy_app_is_asked_again_after_the_time_that_it_names", () =>
  withApp(async ({ app, client, waits }) => {
    app.next.set("/api/generateImage", [[503, "busy", { "Retry-After": "7" }], [503, "busy", { "Retry-After": "9" }]]);
    const events = await collected(client.generate({ prompt: "A fox" }));
    assert.deepEqual(events.slice(0, 2), [7, 9].map((seconds) => ({ type: "waiting", code: "busy", seconds })));
    assert.equal(events.at(-1)?.type, "image");
    assert.deepEqual(waits.slice(0, 2), [7, 9]);
  }));

test("an_app_that_stays_busy_is_given_up", () =>
  withApp(async ({ app, client }) => {
    app.standing.set("/api/generateImage", [503, "busy", { "Retry-After": "7" }]);
    await assert.rejects(collected(client.generate({ prompt: "A fox" })), refused({ code: "busy", status: 503, retryAfter: 7 }));
    assert.equal(app.requests.length, 41);
  }));

test("a_limit_of_the_caller_is_an_error_with_its_code_status_and_time_and_is_not_tried_again", () =>
  withApp(async ({ app, client }) => {
    app.quota.used = app.quota.limit ?? 0;
    await assert.rejects(
      collected(client.generate({ prompt: "A fox" })),
      refused({ name: "ApiError", code: "quota_exceeded", status: 429, retryAfter: 3600, detail: "Detail of quota_exceeded.", invocationId: "0123456789abcdef" }),
    );
    assert.equal(app.requests.length, 1);
  }));

test("an_error_in_a_stream_ends_the_generation_with_its_code_and_categories", () =>
  withApp(async ({ app, client }) => {
    app.script = fails("prompt_rejected", { status: 422, categories: ["violence"] });
    await assert.rejects(collected(client.generate({ prompt: "A fox" })), refused({ code: "prompt_rejected", status: 422, categories: ["violence"] }));
    // A job that ends with a 5xx problem is not taken for a lost connection.
    app.script = fails("job_failed", { status: 502 });
    await assert.rejects(collected(client.generate({ prompt: "A fox" }, { way: "job" })), refused({ code: "job_failed", status: 502 }));
  }));

test("a_job_is_asked_for_its_state_until_it_has_ended", () =>
  withApp(async ({ app, client, waits }) => {
    app.script = draws({ ms: 20 });
    const events = await collected(client.generate({ prompt: "A fox" }, { way: "polledJob" }));
    assert.equal(events[0]?.type, "accepted");
    assert.ok(events[0]?.type === "accepted" && events[0].isJob);
    assert.equal(events.at(-1)?.type, "image");
    // As `Retry-After` says.
    assert.ok(waits.includes(1), String(waits));
  }));

test("a_job_that_has_begun_cannot_be_cancelled_and_one_that_has_not_can", () =>
  withApp(async ({ app, client }) => {
    app.script = async () => {};
    const events = client.generate({ prompt: "A fox" }, { way: "polledJob" });
    const first = (await events.next()).value;
    assert.ok(first?.type === "accepted");
    assert.equal((await client.job(first.statusUrl)).status, "queued");
    assert.equal((await client.cancel(first.statusUrl)).status, "cancelled");
    await assert.rejects(collected(events), refused({ code: "job_cancelled" }));

    app.script = hangs();
    const others = client.generate({ prompt: "A heron" }, { way: "polledJob" });
    const other = (await others.next()).value;
    assert.ok(other?.type === "accepted");
    await assert.rejects(client.cancel(other.statusUrl), refused({ code: "job_has_begun", status: 409 }));
    await others.return(undefined);
  }));

test("an_answer_without_a_code_is_unknown_or_from_a_host_that_cannot_reach_the_app", () =>
  withApp(async ({ app, client }) => {
    app.next.set("/api/generateSASToken", [[401, ""]]);
    await assert.rejects(client.token(), refused({ code: "unknown", status: 401 }));
    app.next.set("/api/quota", [[502, ""], null]);
    await assert.rejects(client.quota(), refused({ code: "connection", status: 502 }));
    await assert.rejects(client.quota(), refused({ code: "connection", status: 0 }));
    app.next.set("/api/generateImage", [[502, ""], null]);
    const events = await collected(client.generate({ prompt: "A fox" }));
    assert.deepEqual(types(events).slice(0, 2), ["waiting", "waiting"]);
    assert.equal(events.at(-1)?.type, "image");
  }));

test("an_abort_ends_a_generation_with_its_reason_also_a_timeout_and_also_while_it_waits", async () => {
  const app = await startStandIn({ images: 0 });
  try {
    // With the waits of the client itself.
    const client = createClient({ base: app.url });
    app.script = hangs();
    await assert.rejects(collected(client.generate({ prompt: "A fox" }, { signal: AbortSignal.timeout(100) })), { name: "TimeoutError" });
    app.standing.set("/api/generateImage", [503, "busy", { "Retry-After": "60" }]);
    const abort = new AbortController();
    const events = collected(client.generate({ prompt: "A fox" }, { signal: abort.signal }), ({ type }) => void (type === "waiting" && setTimeout(() => abort.abort("enough"), 20)));
    await assert.rejects(events, (reason) => reason === "enough");
  } finally {
    await app.stop();
  }
});

test("an_abort_between_two_attempts_ends_the_wait_at_once", async () => {
  const app = await startStandIn({ images: 0 });
  try {
    const client = createClient({ base: app.url });
    app.standing.set("/api/generateImage", [503, "busy", { "Retry-After": "60" }]);
    const abort = new AbortController();
    // The abort comes before the wait has begun, so the wait sees no event.
    const events = collected(client.generate({ prompt: "A fox" }, { signal: abort.signal }), ({ type }) => type === "waiting" && abort.abort("enough"));
    const late = new Promise((resolve) => setTimeout(resolve, 10_000, "the wait went on").unref());
    assert.equal(await Promise.race([events.catch((reason) => reason), late]), "enough");
    assert.equal(app.requests.length, 1);
    await assert.rejects(collected(client.generate({ prompt: "A fox" }, { signal: abort.signal })), (reason) => reason === "enough");
    assert.equal(app.requests.length, 1);
  } finally {
    await app.stop();
  }
});

test("a_request_that_gets_no_headers_is_ended_after_four_minutes_and_sent_again_with_the_same_key", (t) =>
  withApp(async ({ app }) => {
    /** @type {(AbortSignal | null | undefined)[]} */
    const signals = [];
    /** @type {typeof fetch} */
    const firstHangs = (url, request) => {
      if (signals.push(request?.signal) > 1) return fetch(url, request);
      return new Promise((_, reject) => request?.signal?.addEventListener("abort", () => reject(request.signal?.reason)));
    };
    const client = createClient({ base: app.url, fetch: firstHangs, sleep: async () => {} });
    t.mock.timers.enable({ apis: ["setTimeout"] });
    const events = client.generate({ prompt: "A fox" }, { key: "my-key" });
    const first = events.next();
    // Longer than the app takes, and than Azure waits for it.
    t.mock.timers.tick(231_000);
    assert.equal(signals[0]?.aborted, false);
    t.mock.timers.tick(10_000);
    assert.equal(signals[0]?.aborted, true);
    t.mock.timers.reset();
    assert.deepEqual((await first).value, { type: "waiting", code: "connection", seconds: 1 });
    assert.equal((await collected(events)).at(-1)?.type, "image");
    assert.deepEqual(app.requests.map(({ headers }) => headers["idempotency-key"])[0], "my-key");
    assert.equal(app.paid, 1);
  }));

test("all_images_are_listed_page_by_page_and_a_known_page_is_not_sent_again", () =>
  withApp(async ({ app, client }) => {
    const names = [];
    for await (const { name } of client.images()) names.push(name);
    assert.equal(new Set(names).size, 430);
    assert.equal(app.requests.length, 3);
    const first = await client.list({ limit: 10 });
    assert.equal(first?.images.length, 10);
    assert.equal(await client.list({ limit: 10, etag: first?.etag }), null);
    assert.equal((await client.list({ page: first?.next }))?.images[0]?.name, names[10]);
  }));

test("a_delete_token_of_another_image_is_refused_and_the_right_one_deletes_and_restores", () =>
  withApp(async ({ client }) => {
    const last = (await collected(client.generate({ prompt: "A fox" }))).at(-1);
    assert.ok(last?.type === "image");
    const { id, deleteToken } = last.image;
    await assert.rejects(client.remove(id, "wrong"), refused({ code: "delete_token_refused", status: 403 }));
    assert.ok((await client.remove(id, deleteToken)).restorableUntil);
    await assert.rejects(client.details(id), refused({ code: "not_found", status: 404 }));
    assert.equal((await client.restore(id, deleteToken)).id, id);
  }));

test("headers_of_the_client_go_with_every_request_and_choices_without_a_value_are_left_out", () =>
  withApp(async ({ app }) => {
    const client = createClient({ base: app.url, headers: { "x-functions-key": "the-key" } });
    await client.suggestion({ style: "", about: "a fox & a hen" });
    await collected(client.generate({ prompt: "A fox" }));
    assert.deepEqual(app.requests.map(({ headers }) => headers["x-functions-key"]), ["the-key", "the-key"]);
    assert.equal(app.requests[0]?.path, "/api/getChatGPTSuggestion?about=a+fox+%26+a+hen");
  }));
