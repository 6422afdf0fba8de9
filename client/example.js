// Draws an image and says what happens.

import { ApiError, createClient } from "visionary-client";

/**
 * @param {string} base the app's origin
 * @param {string} prompt
 * @param {(line: string) => void} say
 * @returns {Promise<string | undefined>} the link to the image
 */
export async function draw(base, prompt, say = console.log) {
  const client = createClient({ base });
  try {
    for await (const event of client.generate({ prompt, partialImages: 2 })) {
      switch (event.type) {
        case "accepted":
          say(`accepted; ${event.quotaRemaining ?? "any number of"} images are left`);
          break;
        case "progress":
          say(event.phase);
          break;
        case "preview":
          say(`preview: a data URL of ${event.image.length} characters`);
          break;
        case "waiting":
          say(`${event.code}: again in ${event.seconds} s`);
          break;
        case "storedLater":
          say(`stored later as ${event.name}`);
          break;
        case "image":
          say(`image of ${event.image.size}`);
          return event.image.url;
      }
    }
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    say(`${error.code}: ${error.detail}`);
  }
}
