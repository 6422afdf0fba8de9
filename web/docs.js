// The API for readers: the contract that the app serves, as a page.

import { button, byId, element } from "./element.js";

/** @typedef {Record<string, any>} Part a part of the document */

const METHODS = ["get", "post", "put", "patch", "delete", "head"];

/** @type {Part} */
let contract = {};

/** Follows a reference within the document. @param {Part} part @returns {Part} */
function resolved(part) {
  if (!part?.$ref) return part;
  const names = part.$ref.slice(2).split("/");
  return resolved(names.reduce((/** @type {Part} */ at, /** @type {string} */ name) => at[name.replaceAll("~1", "/")], contract));
}

const nameOf = (/** @type {Part} */ part) => part.$ref?.split("/").at(-1);
const code = (/** @type {string} */ text) => element("code", {}, text);

/** `code`, **bold** text and links within a line. @param {string} text @returns {(Node | string)[]} */
function inline(text) {
  return text.split(/(`[^`]+`|\[[^\]]+\]\([^)]+\))/).map((piece) => {
    if (piece.startsWith("`")) return code(piece.slice(1, -1));
    const link = /^\[(.+)\]\((.+)\)$/.exec(piece);
    return link ? element("a", { href: link[2] }, link[1]) : piece;
  });
}

/** The Markdown of descriptions: paragraphs, lists and tables. @param {string} [text] @returns {Node[]} */
function prose(text = "") {
  return text.trim().split(/\n\n+/).filter(Boolean).map((block) => {
    const lines = block.split("\n");
    if (lines[0].startsWith("- ")) {
      const items = block.slice(2).split("\n- ").map((item) => element("li", {}, ...inline(item.replaceAll(/\s+/g, " "))));
      return element("ul", {}, ...items);
    }
    if (lines[0].startsWith("|")) {
      const [head, , ...rows] = lines.map((line) => line.split("|").slice(1, -1).map((cell) => inline(cell.trim())));
      return table(head, rows);
    }
    return element("p", {}, ...inline(lines.join(" ")));
  });
}

/** @param {(Node | string | (Node | string)[])[]} head @param {(Node | string | (Node | string)[])[][]} rows */
function table(head, rows) {
  const row = (/** @type {"th" | "td"} */ tag, /** @type {(Node | string | (Node | string)[])[]} */ cells) =>
    element("tr", {}, ...cells.map((cell) => element(tag, tag === "th" ? { scope: "col" } : {}, ...[cell].flat())));
  return element("table", {}, element("thead", {}, row("th", head)), element("tbody", {}, ...rows.map((cells) => row("td", cells))));
}

/** A schema in one line, with links to the shapes that it names. @param {Part} schema @returns {(Node | string)[]} */
function type(schema) {
  const name = nameOf(schema);
  if (name) return [element("a", { href: `#${name}` }, name)];
  if ("const" in schema) return [JSON.stringify(schema.const)];
  const options = schema.oneOf ?? schema.anyOf;
  if (options) return options.flatMap((/** @type {Part} */ option, /** @type {number} */ at) => (at ? [" | ", ...type(option)] : type(option)));
  if (schema.enum) return [schema.enum.map((/** @type {unknown} */ value) => JSON.stringify(value)).join(" | ")];
  if (schema.items) return [...type(schema.items), "[]"];
  if (schema.contentSchema) return ["JSON of ", ...type(schema.contentSchema)];
  const bounds = schema.maximum === undefined ? "" : ` ${schema.minimum ?? ""} to ${schema.maximum}`;
  return [`${[schema.type ?? "any"].flat().join(" | ")}${bounds}${schema.format ? ` (${schema.format})` : ""}`];
}

const typed = (/** @type {Part} */ schema) => element("code", { className: "type" }, ...type(schema));

/** The fields of an object, or what else a schema says. @param {Part} schema @returns {Node[]} */
function fields(schema) {
  if (!schema.properties) return [element("p", {}, typed(schema))];
  const rows = Object.entries(schema.properties).map(([name, field]) => [
    code(name),
    [typed(field), ...(schema.required?.includes(name) ? [] : [" optional"])],
    prose(field.description ?? resolved(field).description),
  ]);
  return [table(["field", "type", "meaning"], rows)];
}

/** A shape: its name leads to it, or it is shown here. @param {Part} schema @returns {Node[]} */
const shape = (schema) => (schema.properties ? fields(schema) : [element("p", {}, typed(schema))]);

/** The examples of a media type. @param {Part} media @returns {[string, any][]} */
const examples = (media) => [
  ...(media.example === undefined ? [] : [/** @type {[string, any]} */ (["example", media.example])]),
  ...Object.entries(media.examples ?? {}).map(([name, example]) => /** @type {[string, any]} */ ([resolved(example).summary ?? name, resolved(example).value])),
];

/** @param {any} value */
function sample(value) {
  // The events of a stream as they are sent.
  const isStream = Array.isArray(value) && value[0]?.event;
  const text = isStream ? value.map(({ event, data }) => `event: ${event}\ndata: ${data}`).join("\n\n") : typeof value === "string" ? value : JSON.stringify(value, null, 2);
  return element("pre", { tabIndex: 0 }, text);
}

/** @param {Record<string, Part>} [content] */
const contents = (content = {}) =>
  Object.entries(content).flatMap(([mediaType, media]) => [
    element("h4", {}, mediaType),
    ...shape(media.itemSchema ?? media.schema ?? {}),
    ...examples(media).flatMap(([name, value]) => [element("p", {}, name), sample(value)]),
  ]);

/** A parameter's example as it is typed. @param {Part} parameter */
const exampleOf = (parameter) => parameter.example ?? resolved(Object.values(parameter.examples ?? {})[0] ?? {}).value;
const quoted = (/** @type {string} */ text) => `'${text.replaceAll("'", "'\\''")}'`;

/** The command that calls an operation with the examples. @param {string} method @param {string} path @param {Part} operation @param {Part[]} parameters */
function command(method, path, operation, parameters) {
  const placed = (/** @type {string} */ place) => parameters.filter((parameter) => parameter.in === place && exampleOf(parameter) !== undefined);
  const filled = placed("path").reduce((at, { name, ...parameter }) => at.replace(`{${name}}`, encodeURIComponent(exampleOf(parameter))), path);
  const query = new URLSearchParams(placed("query").map((parameter) => [parameter.name, String(exampleOf(parameter))])).toString();
  const words = ["curl"];
  if (method === "head") words.push("-I");
  else if (method !== "get") words.push("-X", method.toUpperCase());
  words.push(quoted(`${location.origin}${filled}${query && `?${query}`}`));
  const [body] = examples(operation.requestBody?.content["application/json"] ?? {});
  const answers = Object.values(/** @type {Record<string, Part>} */ (operation.responses)).map(resolved);
  if (answers.some((answer) => answer.content?.["application/json"] && answer.content["text/plain"])) words.push("-H", quoted("Accept: application/json"));
  if (operation.security) words.push("-H", '"x-functions-key: $KEY"');
  for (const parameter of placed("header").filter(({ name }) => name === "X-Delete-Token")) words.push("-H", quoted(`${parameter.name}: ${exampleOf(parameter)}`));
  if (body) words.push("-d", quoted(JSON.stringify(body[1])));
  return words.join(" ");
}

/** @param {string} text */
function copyable(text) {
  const copy = button("Copy", async () => {
    await navigator.clipboard.writeText(text);
    byId("notice").textContent = "The command is copied.";
  });
  return element("div", { className: "command" }, element("pre", { tabIndex: 0 }, text), copy);
}

/** @param {string} status @param {Part} response */
function answer(status, response) {
  const { description, headers = {}, content } = resolved(response);
  const rows = Object.entries(headers).map(([name, header]) => [code(name), typed(resolved(header).schema), prose(resolved(header).description)]);
  return element(
    "details",
    {},
    element("summary", {}, code(status), element("span", {}, ...inline(description.trim().split("\n\n")[0].replaceAll("\n", " ")))),
    element("div", {}, ...(rows.length ? [element("h4", {}, "Headers"), table(["header", "type", "meaning"], rows)] : []), ...contents(content)),
  );
}

/** @param {string} path @param {string} method @param {Part} operation @param {Part} item */
function operationOf(path, method, operation, item) {
  const parameters = [...(item.parameters ?? []), ...(operation.parameters ?? [])].map(resolved);
  const rows = parameters.map((parameter) => [code(parameter.name), [parameter.in, ": ", typed(parameter.schema), parameter.required ? "" : " optional"], prose(parameter.description)]);
  const body = operation.requestBody;
  return element(
    "section",
    {},
    element("h3", { id: operation.operationId }, operation.summary),
    element("div", { className: "path" }, element("code", { className: "method" }, method.toUpperCase()), code(path), operation.security && element("span", { className: "key" }, "function key")),
    ...prose(operation.description),
    copyable(command(method, path, operation, parameters)),
    ...(rows.length ? [element("h4", {}, "Parameters"), table(["name", "place and type", "meaning"], rows)] : []),
    ...(body ? [element("h4", {}, "Body"), ...prose(body.description), ...contents(body.content)] : []),
    element("h4", {}, "Answers"),
    ...Object.entries(operation.responses).map(([status, response]) => answer(status, response)),
  );
}

/** The operations of a tag, in the order of the document. @param {string} tag */
const operationsOf = (tag) =>
  Object.entries(contract.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]?.tags.includes(tag)).map((method) => ({ path, method, item, operation: item[method] })),
  );

function show() {
  const { info, tags, components } = contract;
  const entry = (/** @type {string} */ id, /** @type {string} */ text) => element("a", { href: `#${id}` }, text);
  for (const { name, description } of tags) {
    const operations = operationsOf(name);
    byId("contents").append(element("h2", {}, name), element("div", {}, ...operations.map(({ operation }) => entry(operation.operationId, operation.summary))));
    byId("contract").append(
      element("h2", { id: name }, name),
      ...prose(description),
      ...operations.map(({ path, method, operation, item }) => operationOf(path, method, operation, item)),
    );
  }
  byId("contract").prepend(...prose(info.description));
  byId("contents").append(element("h2", {}, "Shapes"), element("div", {}, ...Object.keys(components.schemas).map((name) => entry(name, name))));
  const shapes = Object.entries(components.schemas).map(([name, schema]) => element("section", {}, element("h3", { id: name }, name), ...prose(schema.description), ...fields(schema)));
  byId("contract").append(element("h2", {}, "Shapes"), ...shapes);
  byId("contract").setAttribute("aria-busy", "false");
  // The browser looked for the place before the page had it.
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

try {
  const response = await fetch("/api/openapi.json");
  if (!response.ok) throw new Error(`status ${response.status}`);
  contract = await response.json();
  show();
} catch (error) {
  byId("notice").textContent = `The document could not be loaded: ${error instanceof Error ? error.message : error}.`;
}
