// Builds DOM without HTML strings: every value is a text, a property or an attribute.

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, any>} [values] properties and attributes; `on…` adds a listener
 * @param {...(Node | string | null | false | undefined | 0)} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function element(tag, values = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(values)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made) /** @type {any} */ (made)[name] = value;
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children) if (child) made.append(child);
  return made;
}

/**
 * A button with a word, or with an icon and a name.
 * @param {string | Node} face
 * @param {(event: MouseEvent) => void} act
 * @param {string} [className]
 * @param {string} [name]
 */
export function button(face, act, className = "plain", name) {
  return element("button", { type: "button", className, onclick: act, "aria-label": name, title: name }, face);
}

/** The path of the icon that closes. */
export const CROSS = "M5 5l10 10M15 5L5 15";

/**
 * An icon of one stroke. `path` is SVG path data on a grid of 20.
 * @param {string} path
 */
export function icon(path) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 20 20");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(svg.namespaceURI, "path");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}

/**
 * The element of the page with this id.
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @returns {T}
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return /** @type {T} */ (found);
}
