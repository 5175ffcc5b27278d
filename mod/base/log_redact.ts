/**
 * The second fence around secrets: whatever a log line is given, values under telling names, byte strings and
 * full network addresses do not leave. The first fence is not to log them. Values are copied into plain data
 * of bounded depth and size, and nothing here throws, whatever getters and toString() do.
 */
import { maskAddress } from "./address.ts";

/** What stands for a hidden value. */
export const REDACTED = "[redacted]";

const STRING_CHARS_MAX = 8192;
const ITEMS_MAX = 50;
const DEPTH_MAX = 6;
const CAUSES_MAX = 8;

/** Property names whose values never leave, compared without case, `_` and `-`. */
const SECRET_NAMES = new Set([
  "authorization",
  "body",
  "content",
  "cookie",
  "credential",
  "credentials",
  "exportkey",
  "invitation",
  "ke1",
  "ke2",
  "ke3",
  "key",
  "keys",
  "passphrase",
  "password",
  "payload",
  "payloads",
  "pem",
  "plaintext",
  "record",
  "registrationrecord",
  "secret",
  "secrets",
  "seed",
  "text",
  "token",
  "tokens",
]);
/** Ends of names that say the same: authToken, db_key, private-key, clientSecret. */
const SECRET_ENDINGS = /(?:password|passphrase|secret|token|key|payload|plaintext|keypem)$/;
/** What may stand in the `code` of an error. */
const PLAIN_CODE = /^[A-Za-z][A-Za-z_]{1,40}$/;
/** Under these names, addresses are configuration, not peers; and hexadecimal is not an address. */
const ADDRESS_NAMES = /listen$/i;
const HASH_NAMES = /(?:fingerprint|sha256|hash|version|incarnation)$/i;

/** May a value under this name never be shown? */
export function isSecretName(name: string): boolean {
  const plain = name.replaceAll(/[_-]/g, "").toLowerCase();
  return SECRET_NAMES.has(plain) || SECRET_ENDINGS.test(plain);
}

/** Not `v1.2.3.4`, which is a version, nor a part of something longer. */
const IPV4 = /(?<!\d|\d\.|\bv)(\d{1,3}(?:\.\d{1,3}){3})(\/\d{1,2})?(?!\d|\.\d)/g;
const COLON_RUN = /(?<![\w.:])[\w.]*:[\w.]*:[\w.:]*(?:%\w+)?(?:\/\d{1,3})?/g;

/** Words like `peer:` looked for before an IPv6 address. */
const WORDS_BEFORE_MAX = 4;

/** An IPv6 address at the end of `run`, perhaps behind words like `peer:`; masked. */
function maskColonRun(run: string): string {
  const slash = run.indexOf("/");
  if (slash >= 0 && Number(run.slice(slash + 1)) <= 48) return run;
  let rest = slash < 0 ? run : run.slice(0, slash);
  const trailing = /(?<!:):$|\.+$/.exec(rest)?.[0] ?? "";
  rest = rest.slice(0, rest.length - trailing.length);
  let prefix = "";
  // Bounded: a hostile text of many words and colons must not cost a parse for each of them.
  for (let words = 0; words <= WORDS_BEFORE_MAX && /:.*:/.test(rest); words++) {
    if (rest !== "::") {
      const port = /:\d{1,5}$/.exec(rest)?.[0] ?? "";
      for (const end of ["", port]) {
        const masked = maskAddress(rest.slice(0, rest.length - end.length));
        if (masked !== "unknown") return prefix + masked + end + trailing;
      }
    }
    const first = /^[\w.]*:/.exec(rest)?.[0];
    // Only words are taken off: groups of an address that does not parse as a whole are something else.
    if (!first || /^[0-9a-f]{0,4}:$/i.test(first)) break;
    prefix += first;
    rest = rest.slice(first.length);
  }
  return run;
}

/** `text` with every full IPv4 address cut to its /24 and every IPv6 one to its /48. */
export function maskAddresses(text: string): string {
  let masked = text;
  if (masked.indexOf(":") !== masked.lastIndexOf(":")) masked = masked.replace(COLON_RUN, maskColonRun);
  if (!masked.includes(".")) return masked;
  return masked.replace(IPV4, (whole, address: string, bits: string | undefined) => {
    if (address === "0.0.0.0" || (bits && Number(bits.slice(1)) <= 24)) return whole;
    const short = maskAddress(address);
    return short === "unknown" ? whole : short;
  });
}

let hidden: readonly string[] = [];

/** These exact values are cut out of every line from now on, wherever they stand. Short ones are ignored. */
export function hideInLogs(values: readonly string[]): void {
  hidden = values.filter((value) => value.length >= 8).sort((a, b) => b.length - a.length);
}

/** `text` as it may be shown: bounded, without full addresses and without the values that are hidden. */
export function redactText(text: string): string {
  let shown = text.length > STRING_CHARS_MAX ? `${text.slice(0, STRING_CHARS_MAX)}…` : text;
  for (const value of hidden) if (shown.includes(value)) shown = shown.replaceAll(value, REDACTED);
  return maskAddresses(shown);
}

function redactError(error: Error, depth: number): Record<string, unknown> {
  const plain: Record<string, unknown> = { name: error.name, message: redactText(String(error.message)) };
  const code = (error as { code?: unknown }).code;
  if (typeof code === "number" || (typeof code === "string" && PLAIN_CODE.test(code))) plain.code = code;
  if (typeof error.stack === "string") plain.stack = redactText(error.stack);
  if (error.cause !== undefined && depth < CAUSES_MAX) {
    plain.cause = error.cause instanceof Error
      ? redactError(error.cause, depth + 1)
      : redactValue("cause", error.cause, depth + 1);
  }
  return plain;
}

function redactObject(value: object, depth: number): unknown {
  if (value instanceof Error) return redactError(value, depth);
  if (ArrayBuffer.isView(value)) return `<${value.byteLength} bytes>`;
  if (value instanceof ArrayBuffer || value instanceof SharedArrayBuffer) {
    return `<${value.byteLength} bytes>`;
  }
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? "Invalid Date" : value.toISOString();
  if (value instanceof URL || value instanceof RegExp) return redactText(String(value));
  if (depth >= DEPTH_MAX) return "…";
  if (value instanceof Map) return redactObject(Object.fromEntries(value), depth);
  if (Array.isArray(value) || value instanceof Set) {
    const items = [...value];
    const shown = items.slice(0, ITEMS_MAX).map((item) => redactValue("", item, depth + 1));
    return items.length > ITEMS_MAX ? [...shown, `… ${items.length - ITEMS_MAX} more`] : shown;
  }
  return redactRecord(value as Record<string, unknown>, depth + 1);
}

function redactRecord(record: Record<string, unknown>, depth: number): Record<string, unknown> {
  const plain: Record<string, unknown> = {};
  let left = ITEMS_MAX;
  for (const name of Object.keys(record)) {
    if (left-- === 0) {
      plain["…"] = "more";
      break;
    }
    try {
      plain[name] = redactValue(name, record[name], depth);
    } catch {
      plain[name] = "[unprintable]";
    }
  }
  return plain;
}

/** The value of the property `name` as plain data that may be shown. */
export function redactValue(name: string, value: unknown, depth = 0): unknown {
  try {
    if (value === null || value === undefined || typeof value === "boolean") return value ?? null;
    if (isSecretName(name)) return REDACTED;
    if (typeof value === "number") return Number.isFinite(value) ? value : String(value);
    if (typeof value === "string") {
      if (ADDRESS_NAMES.test(name) || HASH_NAMES.test(name)) return redactHiddenOnly(value);
      return redactText(value);
    }
    if (typeof value === "bigint") return String(value);
    if (typeof value === "object") return redactObject(value, depth);
    return `[${typeof value}]`;
  } catch {
    return "[unprintable]";
  }
}

function redactHiddenOnly(text: string): string {
  let shown = text.slice(0, STRING_CHARS_MAX);
  for (const value of hidden) shown = shown.replaceAll(value, REDACTED);
  return shown;
}

/** All properties of a line as plain data that may be shown. */
export function redactProperties(properties: Record<string, unknown>): Record<string, unknown> {
  try {
    return redactRecord(properties, 0);
  } catch {
    return {};
  }
}
