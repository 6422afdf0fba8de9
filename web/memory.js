// What the browser remembers between visits. Every read and write may fail (private windows, full
// storage); the page then works without memory.

/**
 * @template T
 * @param {string} name
 * @param {T} otherwise
 * @returns {T}
 */
export function recall(name, otherwise) {
  try {
    const kept = localStorage.getItem(`visionary.${name}`);
    return kept === null ? otherwise : JSON.parse(kept);
  } catch {
    return otherwise;
  }
}

/**
 * @param {string} name
 * @param {unknown} value `undefined` forgets it
 */
export function remember(name, value) {
  try {
    if (value === undefined) localStorage.removeItem(`visionary.${name}`);
    else localStorage.setItem(`visionary.${name}`, JSON.stringify(value));
  } catch {
    // Nothing to do: see above.
  }
}

/** The newest delete tokens that are kept. A token is good for its image only. */
const TOKENS = 500;

/**
 * @param {string} id
 * @returns {string | undefined}
 */
export function deleteToken(id) {
  return recall("deleteTokens", /** @type {[string, string][]} */ ([])).find(([known]) => known === id)?.[1];
}

/**
 * @param {string} id
 * @param {string} token
 */
export function keepDeleteToken(id, token) {
  const tokens = recall("deleteTokens", /** @type {[string, string][]} */ ([])).filter(([known]) => known !== id);
  remember("deleteTokens", [[id, token], ...tokens].slice(0, TOKENS));
}
