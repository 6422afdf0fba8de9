// Writes the generated types of the client into a folder: wire.d.ts from openapi.yaml, and visionary.d.ts from the
// JSDoc of the module. After a change of one of these: node devkit/client/types.mjs client
// VISIONARY_CLIENT_MODULES names the npm packages of this folder's lock, which `devkit/tests/client.rs` installs.

import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const modules = process.env.VISIONARY_CLIENT_MODULES;
if (!modules) throw new Error("VISIONARY_CLIENT_MODULES must name the npm packages: see devkit/README.md.");
const folder = process.argv[2];
if (!folder) throw new Error("Name the folder to write into, such as `client`.");
const out = resolve(folder);
const root = fileURLToPath(new URL("../../", import.meta.url));
/** @param {string} program @param {string[]} rest */
const node = (program, ...rest) => execFileSync(process.execPath, [join(modules, program), ...rest], { stdio: ["ignore", "ignore", "inherit"] });

const wire = join(out, "wire.d.ts");
node("openapi-typescript/bin/cli.js", join(root, "openapi.yaml"), "--output", wire);
const generated = readFileSync(wire, "utf8").replace(/^\/\*\*[^]*?\*\/\n\n/, "");
writeFileSync(wire, `// Generated from openapi.yaml by devkit/client/types.mjs.\n\n${generated}`);
const compiler = ["--allowJs", "--declaration", "--emitDeclarationOnly", "--strict", "--target", "es2023", "--module", "nodenext"];
node("typescript/bin/tsc", join(root, "client/visionary.js"), ...compiler, "--outDir", out);
