// What is built is understood by the browsers that are promised: Chromium 111, Firefox 113 and Safari 16.4, all of the first
// half of 2023. JavaScript by its syntax and its built-in names, CSS by all that it names, after MDN's tables.

import { readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { parse } from "acorn";
import postcss from "postcss";
import { expect, it } from "vitest";

const BROWSERS = { chrome: 111, firefox: 113, safari: 16.4 };
const dist = new URL("../dist/assets/", import.meta.url);
const files = (ending: string) => readdirSync(dist).filter((name) => name.endsWith(ending)).map((name) => readFileSync(new URL(name, dist), "utf8"));

// Read, not imported: 18 MB are more than a bundler wants to look through.
const bcd = JSON.parse(readFileSync(createRequire(import.meta.url).resolve("@mdn/browser-compat-data"), "utf8")) as Branch;

type Branch = { [key: string]: Branch } & { __compat?: { support: Record<string, Support | Support[]> } };
interface Support { version_added: string | boolean | null; version_removed?: string; flags?: unknown; prefix?: string; partial_implementation?: boolean }

const at = (...path: string[]): Branch | undefined => path.reduce<Branch | undefined>((branch, key) => branch?.[key], bcd);

/** Browsers that came to know something after the promised version, or do not know it. */
function lacking(branch: Branch | undefined): string[] {
  const support = branch?.__compat?.support;
  if (!support) return [];
  return Object.entries(BROWSERS).filter(([browser, version]) => {
    const entries = [support[browser]].flat().filter((it) => it !== undefined);
    return !entries.some((it) => !it.flags && !it.version_removed && it.version_added !== false && it.version_added !== null && parseFloat(String(it.version_added).replace("≤", "")) <= version);
  }).map(([browser]) => browser);
}

/** What does no harm where it is not known. */
const HARMLESS = new Set([
  // A scrollbar is there, and the native slider has the system's colour.
  "scrollbar-width", "scrollbar-width: none", "accent-color",
]);

it("tells what a browser lacks", () => {
  expect(lacking(at("css", "properties", "color"))).toEqual([]);
  expect(lacking(at("css", "properties", "anchor-name"))).toEqual(["chrome", "firefox", "safari"]);
  expect(lacking(at("css", "selectors", "has"))).toEqual(["firefox"]);
});

it("the style sheet names nothing that they lack", () => {
  const missing = new Set<string>();
  let looked = 0;
  const look = (what: string, branch: Branch | undefined) => {
    looked += branch?.__compat ? 1 : 0;
    const without = HARMLESS.has(what) ? [] : lacking(branch);
    if (without.length) missing.add(`${what}: ${without.join(", ")}`);
  };
  for (const text of files(".css")) {
    const root = postcss.parse(text);
    root.walkDecls(({ prop, value }) => {
      if (prop.startsWith("--") || prop.startsWith("-")) return;
      look(prop, at("css", "properties", prop));
      for (const [, name] of value.matchAll(/([a-z-]+)\(/g)) look(`${name}()`, at("css", "types", name!) ?? at("css", "types", "color", name!) ?? at("css", "types", "gradient", name!) ?? at("css", "types", "image", name!));
      for (const word of value.split(/[\s,()]+/)) look(`${prop}: ${word}`, at("css", "properties", prop, word));
    });
    root.walkRules(({ selector, parent }) => {
      expect(parent?.type === "rule", `nesting: ${selector}`).toBe(false);
      for (const [, name] of selector.matchAll(/::?([a-z-]+)/g)) look(`:${name}`, at("css", "selectors", name!));
    });
    root.walkAtRules(({ name, params }) => {
      look(`@${name}`, at("css", "at-rules", name));
      for (const [, feature] of params.matchAll(/\(([a-z-]+)/g)) look(`@${name} ${feature}`, at("css", "at-rules", name, feature!));
    });
  }
  expect(looked).toBeGreaterThan(500);
  expect([...missing]).toEqual([]);
});

it("the scripts have the syntax of ES2022 and name no newer built-in", () => {
  const missing = new Set<string>();
  let members = 0;
  for (const text of files(".js")) {
    const tree = parse(text, { ecmaVersion: 2022, sourceType: "module" });
    walk(tree, (node) => {
      const callee = node["callee"] as Node | undefined;
      if (node["type"] !== "CallExpression" || callee?.["type"] !== "MemberExpression" || callee["computed"]) return;
      const name = String((callee["property"] as Node)["name"]);
      members++;
      // A method of any built-in: what no built-in had in time is reported wherever that name is called.
      const having = BUILT_IN.get(name) ?? [];
      const bad = having.map(lacking);
      if (!OTHERS.has(name) && having.length && bad.every((it) => it.length)) missing.add(`${name}: ${[...new Set(bad.flat())].join(", ")}`);
    });
  }
  expect(members).toBeGreaterThan(2000);
  expect([...missing]).toEqual([]);
});

type Node = Record<string, unknown>;

function walk(node: unknown, visit: (node: Node) => void): void {
  if (Array.isArray(node)) node.forEach((it) => walk(it, visit));
  else if (node && typeof node === "object") {
    if ("type" in node) visit(node as Node);
    Object.values(node).forEach((it) => walk(it, visit));
  }
}

/** Of the console, of React and of `CSS`, and only by name what newer built-ins have. */
const OTHERS = new Set(["error", "use", "escape"]);

/** All that built-ins know under a name. */
const BUILT_IN = new Map<string, Branch[]>();
for (const branch of Object.values(at("javascript", "builtins") ?? {})) {
  for (const [name, member] of Object.entries(branch)) {
    if (name.startsWith("__") || !member.__compat) continue;
    BUILT_IN.set(name, [...(BUILT_IN.get(name) ?? []), member]);
  }
}
