/** qpq-server.toml as keys and values, with the line that each came from. */
import { parse, TomlError } from "smol-toml";

/** A value in the file. */
export interface FileValue {
  readonly raw: unknown;
  /** 0 when it could not be found. */
  readonly line: number;
}

/** The file's values by dotted key, or why it is no TOML. */
export type TomlResult =
  | { readonly ok: true; readonly values: ReadonlyMap<string, FileValue> }
  | { readonly ok: false; readonly line: number; readonly text: string };

/** Depth at which tables are no longer taken apart: options are `key` or `group.key`. */
const DEPTH_MAX = 2;

/** Lines of keys. A reader of its own, since the parser does not tell them: good enough for messages. */
function keyLines(text: string): Map<string, number> {
  const lines = new Map<string, number>();
  let table = "";
  let inside: string | undefined;
  for (const [i, line] of text.split("\n").entries()) {
    const fences: string[] = line.match(/"""|'''/g) ?? [];
    if (inside) {
      if (fences.includes(inside)) inside = undefined;
      continue;
    }
    const header = /^\s*\[\[?\s*([\w."' -]+?)\s*\]\]?/.exec(line);
    if (header) {
      table = `${plainKey(header[1]!)}.`;
      if (!lines.has(plainKey(header[1]!))) lines.set(plainKey(header[1]!), i + 1);
    } else {
      const key = /^\s*([\w."' -]+?)\s*=/.exec(line);
      if (key) lines.set(table + plainKey(key[1]!), i + 1);
    }
    if (fences.length % 2 === 1) inside = fences.at(-1);
  }
  return lines;
}

function plainKey(key: string): string {
  return key.split(".").map((part) => part.trim().replaceAll(/^["']|["']$/g, "")).join(".");
}

function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && Object.getPrototypeOf(value) !== Date.prototype &&
    !Array.isArray(value) && !(value instanceof Date);
}

/** Parses the text of the file. */
export function parseToml(text: string): TomlResult {
  const source = text.startsWith("\ufeff") ? text.slice(1) : text;
  let parsed: Record<string, unknown>;
  try {
    parsed = parse(source);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    // The parser's message goes on with an excerpt of the file, which may hold a secret.
    const reason = error.message.split("\n")[0]!.replace(/^Invalid TOML document: /, "");
    return { ok: false, line: error.line, text: `is no valid TOML: ${reason}` };
  }
  const lines = keyLines(source);
  const values = new Map<string, FileValue>();
  const walk = (table: Record<string, unknown>, prefix: string, depth: number) => {
    for (const [name, raw] of Object.entries(table)) {
      const key = prefix + name;
      if (isTable(raw) && depth < DEPTH_MAX) walk(raw, `${key}.`, depth + 1);
      else values.set(key, { raw, line: lines.get(key) ?? lines.get(prefix.slice(0, -1)) ?? 0 });
    }
  };
  walk(parsed, "", 1);
  return { ok: true, values };
}
