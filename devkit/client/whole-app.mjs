// The client against the whole app, in Node.js and in a page of another origin: `devkit/tests/client.rs` starts the app
// and names it in VISIONARY_URL, its storage in VISIONARY_BLOBS, and in VISIONARY_FRONT_END the port of the only origin
// that the app's CORS setting allows.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { draw } from "../../client/example.js";
import { ApiError, createClient } from "../../client/visionary.js";
import { launch } from "../browser/browser.mjs";

const APP = process.env.VISIONARY_URL ?? "";
const BLOBS = process.env.VISIONARY_BLOBS ?? "";
const MODULE = readFileSync(new URL("../../client/visionary.js", import.meta.url));
const LONG = { timeout: 120_000 };

/** @type {import("playwright-core").Browser} */
let browser;
/** @type {import("node:http").Server[]} */
const servers = [];
before(async () => void (browser = await launch()));
after(async () => {
  await browser.close();
  for (const server of servers) server.close().closeAllConnections();
});

/** Serves a front end: an empty page and the client. @param {number} port 0 for any @returns {Promise<string>} its origin */
async function frontEnd(port) {
  const server = createServer(({ url }, response) => {
    if (url === "/visionary.js") response.writeHead(200, { "Content-Type": "text/javascript" }).end(MODULE);
    else response.writeHead(200, { "Content-Type": "text/html" }).end("<!doctype html><link rel=icon href=data:,><title>A front end</title>");
  });
  servers.push(server);
  await new Promise((resolve) => server.listen(port, "127.0.0.1", () => resolve(undefined)));
  return `http://127.0.0.1:${/** @type {any} */ (server.address()).port}`;
}

/** Opens a front end. `wrong` has what the browser reports as an error. @param {string} origin */
async function open(origin) {
  const page = await browser.newPage();
  /** @type {string[]} */
  const wrong = [];
  page.on("pageerror", (error) => wrong.push(String(error.stack)));
  page.on("console", (message) => message.type() === "error" && wrong.push(message.text()));
  await page.goto(origin);
  return { page, wrong };
}

test("the_example_draws_and_names_a_refusal", LONG, async () => {
  /** @type {string[]} */
  const said = [];
  const url = await draw(APP, "A heron of folded maps", (line) => said.push(line));
  assert.equal((await fetch(url ?? "")).status, 200);
  const steps = said.map((line) => line.replace(/\d+(?= (characters|images))/, "N"));
  assert.deepEqual(new Set(steps), new Set(["queued", "accepted; N images are left", "drawing", "preview: a data URL of N characters", "saving", "image of 1024x1024"]));

  said.length = 0;
  assert.equal(await draw(APP, "A forbidden fox", (line) => said.push(line)), undefined);
  assert.match(said.at(-1) ?? "", /^prompt_rejected: \S/);
});

test("every_method_of_the_client_gets_what_its_types_promise", LONG, async () => {
  const client = createClient({ base: APP });
  const options = await client.options();
  assert.ok(options.jobs && options.sizes.some(({ isDefault, width }) => isDefault && width > 0));
  assert.ok((await client.styles()).every(({ name, title, keywords }) => name && title && keywords));
  const { limit, used, remaining } = await client.quota();
  assert.equal(limit, (used ?? 0) + (remaining ?? 0));
  assert.ok((await client.suggestion({ style: "watercolor", about: "a fox" })).length > 5);
  assert.ok((await client.token()).containerUrl.startsWith(BLOBS));

  // A job whose state is asked for.
  const seen = [];
  let statusUrl = "";
  /** @type {import("../../client/visionary.js").GeneratedImage | undefined} */
  let image;
  for await (const event of client.generate({ prompt: "A whale above a harbour", size: "1792x1024" }, { way: "polledJob" })) {
    seen.push(event.type);
    if (event.type === "accepted") statusUrl = event.statusUrl;
    if (event.type === "image") image = event.image;
  }
  assert.ok(image && seen[0] === "accepted", String(seen));
  const job = await client.job(statusUrl);
  assert.equal(job.status, "done");
  assert.equal(job.result && "id" in job.result && job.result.id, image.id);
  await assert.rejects(client.cancel(statusUrl), (error) => error instanceof ApiError && error.code === "job_has_begun" && error.status === 409);

  const listed = [];
  for await (const { id } of client.images()) listed.push(id);
  assert.equal(listed[0], image.id);
  assert.equal((await client.details(image.id)).prompt, "A whale above a harbour");
  assert.ok(Date.parse((await client.remove(image.id, image.deleteToken)).restorableUntil) > Date.now());
  assert.equal((await client.list({ limit: 1 }))?.images[0]?.id, listed[1]);
  assert.equal((await client.restore(image.id, image.deleteToken)).id, image.id);
  const page = await client.list({ limit: 1 });
  assert.equal(page?.images[0]?.id, image.id);
  assert.equal((await client.list({ page: page?.next, limit: 1 }))?.images[0]?.id, listed[1]);
  assert.equal(await client.list({ limit: 1, etag: page?.etag }), null);
});

test("a_page_of_an_allowed_origin_draws_with_events_and_reads_every_header", LONG, async () => {
  const { page, wrong } = await open(await frontEnd(Number(process.env.VISIONARY_FRONT_END)));
  const seen = await page.evaluate(async (base) => {
    const { createClient } = await import(/** @type {any} */ ("/visionary.js"));
    const client = createClient({ base });
    const types = new Set();
    for await (const event of client.generate({ prompt: "A boat at another pier" })) {
      types.add(event.type);
      if (event.type === "image") {
        const image = new Image();
        image.src = event.image.url;
        await image.decode();
        await client.remove(event.image.id, event.image.deleteToken);
        await client.restore(event.image.id, event.image.deleteToken);
        return { types: [...types], width: image.naturalWidth };
      }
    }
    return { types: [...types], width: 0 };
  }, APP);
  assert.deepEqual(new Set(seen.types), new Set(["progress", "accepted", "preview", "image"]));
  assert.equal(seen.width, 1024);

  const headers = await page.evaluate(async (base) => {
    const json = { Accept: "application/json" };
    const post = (/** @type {Record<string, string>} */ headers, /** @type {unknown} */ body) => fetch(`${base}/api/generateImage`, { method: "POST", headers: { ...json, ...headers }, body: JSON.stringify(body) });
    /** @type {Record<string, Record<string, string>>} */
    const answers = {};
    for (const [name, answer] of Object.entries({
      job: await post({ Prefer: "respond-async", "Idempotency-Key": "other-origin" }, { prompt: "A boat as a job" }),
      refusal: await post({}, {}),
      list: await fetch(`${base}/api/getImages?limit=1`),
      suggestion: await fetch(`${base}/api/getChatGPTSuggestion`),
    })) answers[name] = Object.fromEntries(answer.headers);
    return answers;
  }, APP);
  const has = (/** @type {string} */ answer, /** @type {string[]} */ ...names) => names.forEach((name) => assert.ok(headers[answer]?.[name], `${answer} has no ${name}: ${JSON.stringify(headers)}`));
  has("job", "location", "retry-after", "preference-applied", "ratelimit", "ratelimit-policy", "x-azure-functions-invocationid");
  has("refusal", "x-error-code", "ratelimit", "x-azure-functions-invocationid");
  has("list", "link", "etag");
  has("suggestion", "x-suggestion-source");

  // A page that knows only the address of a job gets its image.
  const last = await page.evaluate(async ([base, statusUrl]) => {
    const { createClient } = await import(/** @type {any} */ ("/visionary.js"));
    let last;
    for await (const event of createClient({ base }).generate({ prompt: "A boat as a job" }, { statusUrl })) last = event;
    return last.image.prompt;
  }, [APP, headers.job?.location ?? ""]);
  assert.equal(last, "A boat as a job");
  // The browser itself reports the refusal, which is meant.
  assert.deepEqual(wrong.filter((one) => !one.includes("status of 400")), []);
});

test("a_page_of_an_origin_that_is_not_allowed_reads_nothing", LONG, async () => {
  const { page, wrong } = await open(await frontEnd(0));
  const code = await page.evaluate(async (base) => {
    const { createClient } = await import(/** @type {any} */ ("/visionary.js"));
    return createClient({ base }).options().then(() => "an answer", (/** @type {any} */ error) => error.code);
  }, APP);
  assert.equal(code, "connection");
  assert.match(wrong.join(), /blocked by CORS policy/);
});
