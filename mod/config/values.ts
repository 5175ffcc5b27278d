/**
 * Types of option values: how each is read from text (environment, flags) and from TOML. A reader returns the
 * value or, as a {@link Refusal}, what is wrong with it in words that never repeat the value of a secret.
 */
import { isIP } from "node:net";
import { type NetAddress, tryParseAddress } from "../base/address.ts";

/** Why a value cannot be used: the rest of a sentence that begins with the option's name. */
export class Refusal {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

/** A reader of one type: `raw` is text, or a boolean, number or array from TOML. */
export type Reader<T> = (raw: unknown) => T | Refusal;

const BOOLEANS: Record<string, boolean> = {
  true: true,
  yes: true,
  on: true,
  "1": true,
  false: false,
  no: false,
  off: false,
  "0": false,
};

const DURATION_UNITS_MS: Record<string, number> = {
  "": 1000,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

const BYTE_UNITS: Record<string, number> = {
  "": 1,
  b: 1,
  kb: 1000,
  mb: 1000 ** 2,
  gb: 1000 ** 3,
  tb: 1000 ** 4,
  kib: 1024,
  mib: 1024 ** 2,
  gib: 1024 ** 3,
  tib: 1024 ** 4,
};

/** A value as a problem may show it. */
function show(raw: unknown): string {
  const text = typeof raw === "string" ? raw : textOf(raw);
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text);
}

/** Neither JSON nor String() takes everything: objects may have no prototype, a cycle, a toJSON of their own. */
function textOf(raw: unknown): string {
  try {
    return JSON.stringify(raw) ?? String(raw);
  } catch {
    return typeof raw === "bigint" ? String(raw) : typeof raw;
  }
}

/** Text as it is; not empty. */
export const readString: Reader<string> = (raw) => {
  if (typeof raw !== "string") return new Refusal(`must be a string: ${show(raw)}`);
  return raw.trim() === "" ? new Refusal("must not be empty") : raw.trim();
};

/** `true`, `yes`, `on`, `1` and their opposites. */
export const readBoolean: Reader<boolean> = (raw) => {
  if (typeof raw === "boolean") return raw;
  const value = typeof raw === "string" ? BOOLEANS[raw.trim().toLowerCase()] : undefined;
  return value ?? new Refusal(`must be true or false: ${show(raw)}`);
};

function bounded(
  value: number,
  options: { min: number; max: number; shown: (value: number) => string; raw: unknown },
): number | Refusal {
  const { min, max, shown } = options;
  if (value >= min && value <= max) return value;
  return new Refusal(`must be ${shown(min)} to ${shown(max)}: ${show(options.raw)}`);
}

/** A whole number; `_` and `,` may group digits. */
export function readInteger(min: number, max: number): Reader<number> {
  return (raw) => {
    const text = typeof raw === "number"
      ? String(raw)
      : typeof raw === "string"
      ? raw.trim().replaceAll(/(?<=\d)[_,](?=\d)/g, "")
      : "";
    if (!/^[+-]?\d{1,15}$/.test(text)) {
      return new Refusal(`must be a whole number: ${show(raw)}`);
    }
    return bounded(Number(text), { min, max, shown: String, raw });
  };
}

function withUnit(
  raw: unknown,
  units: Record<string, number>,
): number | undefined {
  const text = typeof raw === "number" ? String(raw) : typeof raw === "string" ? raw.trim() : "";
  const match = /^(\d{1,15}(?:\.\d{1,6})?)\s*([A-Za-z]*)$/.exec(text);
  const unit = match && units[match[2]!.toLowerCase()];
  if (!match || unit === undefined || unit === null) return undefined;
  const value = Number(match[1]) * unit;
  return Math.abs(value - Math.round(value)) < 1e-6 ? Math.round(value) : undefined;
}

/** Seconds without a unit, or `500ms`, `10s`, `5m`, `24h`, `30d`; the value is in milliseconds. */
export function readDuration(minMs: number, maxMs: number): Reader<number> {
  return (raw) => {
    const value = withUnit(raw, DURATION_UNITS_MS);
    if (value === undefined) {
      return new Refusal(`must be a duration such as 10s, 5m, 24h or 30d: ${show(raw)}`);
    }
    return bounded(value, { min: minMs, max: maxMs, shown: showDuration, raw });
  };
}

/** A number of bytes, or `64KiB`, `2MiB`, `1GB`. */
export function readBytes(min: number, max: number): Reader<number> {
  return (raw) => {
    const value = withUnit(raw, BYTE_UNITS);
    if (value === undefined) return new Refusal(`must be a size such as 512KiB, 2MiB or 1GiB: ${show(raw)}`);
    return bounded(value, { min, max, shown: showBytes, raw });
  };
}

/** `host:port`; IPv6 in brackets: `[::]:7000`. Port 0 is any free one. */
export const readAddress: Reader<NetAddress> = (raw) => {
  const text = typeof raw === "string" ? raw.trim() : "";
  return tryParseAddress(text) ??
    new Refusal(`must be host:port such as 0.0.0.0:7000 or [::]:7000: ${show(raw)}`);
};

/** Like {@link readAddress}, but no name: for what names are looked up with. */
export const readIpAddress: Reader<NetAddress> = (raw) => {
  const address = readAddress(raw);
  if (address instanceof Refusal || isIP(address.hostname) !== 0) return address;
  return new Refusal(`must name an IP address and a port such as 192.0.2.1:53, no host name: ${show(raw)}`);
};

/** Comma-separated words, or an array in TOML. */
export const readList: Reader<readonly string[]> = (raw) => {
  const items = typeof raw === "string" ? raw.split(",") : Array.isArray(raw) ? raw : undefined;
  if (!items || items.some((item) => typeof item !== "string")) {
    return new Refusal(`must be a list of words: ${show(raw)}`);
  }
  const words = (items as string[]).map((item) => item.trim()).filter((item) => item !== "");
  return words.length > 0 ? words : new Refusal("must not be empty");
};

/** One of a few words. */
export function readEnum<const Values extends readonly string[]>(values: Values): Reader<Values[number]> {
  return (raw) => {
    const text = typeof raw === "string" ? raw.trim().toLowerCase() : raw;
    return values.find((value) => value === text) ??
      new Refusal(`must be one of ${values.join(", ")}: ${show(raw)}`);
  };
}

/** Lines of a secret, trimmed, blank ones dropped: the first is wanted, the others are still accepted. */
export const readSecretLines: Reader<readonly string[]> = (raw) => {
  if (typeof raw !== "string") return new Refusal("must be a string");
  const lines = raw.split(/\r?\n/).map((line) => line.trim()).filter((line) => line !== "");
  if (lines.length === 0) return new Refusal("must not be empty");
  // deno-lint-ignore no-control-regex
  return /[\x00-\x09\x0b\x0c\x0e-\x1f\x7f]/.test(lines.join("\n"))
    ? new Refusal("must not hold control characters")
    : lines;
};

/** Milliseconds as the largest unit that divides them: `30d`, `90s`, `250ms`. */
export function showDuration(ms: number): string {
  for (const unit of ["d", "h", "m", "s"]) {
    const unitMs = DURATION_UNITS_MS[unit]!;
    if (ms >= unitMs && ms % unitMs === 0) return `${ms / unitMs}${unit}`;
  }
  return `${ms}ms`;
}

/** Bytes as the largest binary unit that divides them. */
export function showBytes(bytes: number): string {
  for (const unit of ["TiB", "GiB", "MiB", "KiB"]) {
    const size = BYTE_UNITS[unit.toLowerCase()]!;
    if (bytes >= size && bytes % size === 0) return `${bytes / size}${unit}`;
  }
  return String(bytes);
}

/** `host:port`, IPv6 in brackets. */
export function showAddress(address: NetAddress): string {
  const host = address.hostname.includes(":") ? `[${address.hostname}]` : address.hostname;
  return `${host}:${address.port}`;
}
