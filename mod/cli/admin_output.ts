/** Results of operations for people: rows of name and value, durations and sizes in words. */
import type { Json, JsonObject } from "../admin/control.ts";

const HIDDEN = new Set(["via"]);

/** One row a value; objects inside are rows with a dot in their name. */
export function describeRows(result: JsonObject): string {
  const rows = [...flatten(result, "")].filter(([name]) => !HIDDEN.has(name));
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, value]) => `${name.padEnd(width)}  ${value}\n`).join("");
}

function* flatten(object: JsonObject, prefix: string): Generator<[string, string]> {
  for (const [key, value] of Object.entries(object)) {
    if (isObject(value)) yield* flatten(value, `${prefix}${wordsOf(key)} `);
    else yield [`${prefix}${wordsOf(key)}`, describe(key, value)];
  }
}

function isObject(value: Json): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** `lastReloadAt` → `last reload`. */
function wordsOf(key: string): string {
  return key.replace(/(?<=.)(At|Ms)$/, "").replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}

function describe(key: string, value: Json): string {
  if (value === null) return "-";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) return value.length === 0 ? "-" : value.join(", ");
  if (typeof value !== "number") return String(value);
  if (key.endsWith("At")) return new Date(value).toISOString().replace(/\.\d+Z$/, "Z");
  if (key.endsWith("Ms")) return showSpan(value);
  if (key === "bytes" || key.endsWith("Bytes")) return showSize(value);
  return value.toLocaleString("en");
}

/** `1 device`, `3 devices`. */
export function countOf(count: Json | undefined, noun: string): string {
  return `${Number(count).toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

/** Rows in columns; the first row is the heading. */
export function showTable(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const line = (row: readonly string[]) => row.map((cell, i) => cell.padEnd(widths[i]!)).join("  ").trimEnd();
  return rows.map((row) => `${line(row)}\n`).join("");
}

/** Unix ms in words; `-` for what never was. */
export function showTime(at: Json | undefined): string {
  return typeof at === "number" ? new Date(at).toISOString().replace(/\.\d+Z$/, "Z") : "-";
}

/** `3 d 4 h`, `5 min 2 s`, `40 s`. */
export function showSpan(ms: number): string {
  const units: [string, number][] = [["d", 86_400_000], ["h", 3_600_000], ["min", 60_000], ["s", 1000]];
  const first = units.findIndex(([, size]) => ms >= size);
  if (first < 0) return `${Math.round(ms)} ms`;
  let rest = ms;
  const parts = units.slice(first, first + 2).map(([unit, size]) => {
    const count = Math.floor(rest / size);
    rest -= count * size;
    return count === 0 ? "" : `${count} ${unit}`;
  });
  return parts.filter((part) => part !== "").join(" ");
}

/** `12.3 MiB`. */
export function showSize(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let size = bytes;
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit++;
  }
  return `${unit === 0 ? size : size.toFixed(1)} ${units[unit]}`;
}
