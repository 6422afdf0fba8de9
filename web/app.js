// Puts the page together: the composer starts generations, these become tiles, tiles open the lightbox.

import { closeUntil, finished, offer, offered, startComposer, suggest, write } from "./composer.js";
import { button, byId, element } from "./element.js";
import { addRunning, awaitListing, land, removeRunning, startGallery } from "./gallery.js";
import { client, start, unfinished, ways } from "./generation.js";
import { startLightbox } from "./lightbox.js";
import { keepDeleteToken, remember } from "./memory.js";
import { loadQuota, quotaIsNow, watchQuota } from "./quota.js";
import { hue, runningTile } from "./running.js";
import { notify, report, withdraw } from "./status.js";
import { language, LANGUAGES, texts, translate } from "./texts.js";

/** @typedef {import("./generation.js").Generation} Generation */

/** Shows a generation as a tile and runs it. @param {Generation} generation */
function run(generation) {
  const { body, ratio } = generation.kept;
  const made = runningTile(generation, {
    onimage: (tile) => {
      const { image, preview } = generation;
      if (!image) return;
      if (image.id && image.deleteToken) keepDeleteToken(image.id, image.deleteToken);
      const [width, height] = (image.size ?? "").split("x").map(Number);
      const { deleteToken: _, ...listed } = image;
      land(tile, { width, height, ...listed }, preview);
      finished(body.prompt);
      withdraw("providerDown");
    },
    onaccepted: () => quotaIsNow(generation.quotaRemaining),
    onstoredlater: awaitListing,
    onagain: () => draw([body], ratio),
    onedit: () => write(body),
    onquota: () => byId("quota").scrollIntoView({ block: "center" }),
    onend: () => {
      if (generation.error?.code.startsWith("provider_")) notify("providerDown");
      loadQuota();
    },
    onremove: removeRunning,
  });
  addRunning(made);
}

/** @param {import("../client/visionary.js").GenerateImageRequest[]} bodies @param {number} ratio */
function draw(bodies, ratio) {
  for (const body of bodies) run(start(body, ratio));
  scrollTo({ top: Math.min(scrollY, byId("composer").offsetTop) });
}

function switches() {
  const root = document.documentElement;
  byId("theme").addEventListener("click", () => {
    const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = isDark ? "light" : "dark";
    remember("theme", root.dataset.theme);
  });
  const at = LANGUAGES.findIndex(({ code }) => code === language);
  const other = LANGUAGES[(at + 1) % LANGUAGES.length];
  const choice = byId("language");
  choice.textContent = other.code.toUpperCase();
  choice.lang = other.code;
  choice.title = other.name;
  choice.addEventListener("click", () => {
    remember("language", other.code);
    // What runs goes on after the reload.
    location.reload();
  });
}

/** Three ideas in place of the gallery. */
async function showEmpty() {
  const ideas = new Set();
  for (let asked = 0; asked < 6 && ideas.size < 3; asked++) ideas.add(await client.suggestion().catch(() => ""));
  ideas.delete("");
  if (byId("gallery").querySelector(".tile, .empty")) return;
  const cards = [...ideas].map((idea, at) => {
    const card = button(element("span", { dir: "auto" }, idea), () => write({ prompt: idea }), "idea");
    card.style.setProperty("--hue", String(hue(idea) + 130 * at));
    return element("li", {}, card);
  });
  byId("gallery").prepend(
    element("div", { className: "empty" }, element("h2", {}, texts.emptyTitle), element("p", {}, texts.emptyText), element("ul", {}, ...cards)),
  );
}

async function loadOptions() {
  try {
    const options = await client.options();
    ways.hasJobs = options.jobs;
    ways.signIn = options.signIn;
    offer(options);
    if (!options.signIn) return;
    const name = await client.account().catch(() => undefined);
    byId("account").hidden = !name;
    byId("account-name").textContent = name ?? "";
  } catch (error) {
    report(error);
    setTimeout(loadOptions, 5000);
  }
}

translate();
switches();
watchQuota(closeUntil);
startComposer(draw);
addEventListener("offline", () => notify("offline"));
addEventListener("online", () => withdraw("offline"));
if (!navigator.onLine) notify("offline");
loadOptions();
loadQuota();
suggest();
const first = startGallery(showEmpty);
for (const generation of unfinished()) run(generation);
first.then(() => startLightbox({ onuse: write, onvary: (body, ratio) => draw([offered(body)], ratio) }));
