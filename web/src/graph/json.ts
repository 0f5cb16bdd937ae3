// JSON that keeps whole numbers of any size: a seed may have 64 bits, a JavaScript number holds 53.
//
// Such numbers are `bigint` in memory. Python also writes NaN and Infinity, which are read as null.

export type Json = null | boolean | number | bigint | string | Json[] | JsonObject;
export interface JsonObject {
  [key: string]: Json;
}

const MARK = "\u0001whole:";
const TOKENS = /"(?:[^"\\]|\\.)*"|(?<![\d.eE+-])-?\d{16,}(?![\d.eE])|-?\bInfinity\b|\bNaN\b/g;

/** Reads JSON. Throws `SyntaxError` like `JSON.parse`. */
export function parseJson(text: string): Json {
  let marked = false;
  const prepared = text.replace(TOKENS, (token) => {
    if (token.startsWith('"')) return token;
    if (/[IN]/.test(token)) return "null";
    if (Number.isSafeInteger(Number(token))) return token;
    marked = true;
    return `"\\u0001whole:${token}"`;
  });
  return JSON.parse(prepared, marked ? revive : undefined) as Json;
}

function revive(_key: string, value: unknown): unknown {
  return typeof value === "string" && value.startsWith(MARK) ? BigInt(value.slice(MARK.length)) : value;
}

/** Writes JSON. `indent` as for `JSON.stringify`. */
export function formatJson(value: unknown, indent?: number): string {
  let marked = false;
  const text = JSON.stringify(
    value,
    (_key, it: unknown) => {
      if (typeof it !== "bigint") return it;
      marked = true;
      return MARK + it.toString();
    },
    indent,
  );
  return marked ? text.replace(/"\\u0001whole:(-?\d+)"/g, "$1") : text;
}

/** The value if it is an object, else nothing. */
export function asObject(value: unknown): JsonObject | undefined {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as JsonObject) : undefined;
}

/** The value if it is a list, else an empty one. */
export function asList(value: unknown): Json[] {
  return Array.isArray(value) ? (value as Json[]) : [];
}

/** The value if it is a text, else nothing. */
export function asText(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

/** The object without some keys. */
export function without<T extends object>(object: T, ...keys: string[]): JsonObject {
  return Object.fromEntries(Object.entries(object).filter(([key]) => !keys.includes(key))) as JsonObject;
}

/** Whether two values are written the same. */
export function sameJson(a: unknown, b: unknown): boolean {
  return a === b || formatJson(a) === formatJson(b);
}
