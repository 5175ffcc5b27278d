/**
 * Log records as lines: for people (`12:00:01.250 INFO  qpq::server Message key=value`) or JSON, one object a
 * line with ts, level, target, msg and the properties beside them. Everything passes log_redact.ts.
 */
import type { LogLevel, LogRecord } from "@logtape/logtape";
import { redactProperties, redactText, redactValue } from "./log_redact.ts";

/** Turns a record into a line that ends with a newline. */
export type LineFormatter = (record: LogRecord) => string;

const LEVEL_NAMES: Record<LogLevel, string> = {
  trace: "trace",
  debug: "debug",
  info: "info",
  warning: "warn",
  error: "error",
  fatal: "error",
};

const COLOURS: Record<string, string> = { trace: "90", debug: "34", info: "32", warn: "33", error: "31" };

/** Names that the line itself uses; a property of that name gets a `_`. */
const RESERVED = new Set(["ts", "level", "target", "msg"]);

function shown(value: unknown): string {
  if (typeof value === "string") return value;
  return JSON.stringify(value) ?? String(value);
}

/** The message with its `{placeholders}` filled by redacted properties: by name, so that names can tell secrets. */
function messageOf(record: LogRecord, properties: Record<string, unknown>): string {
  const template = record.rawMessage;
  if (typeof template !== "string") {
    return template.map((part, i) => {
      const value = i + 1 < template.length ? shown(redactValue("", record.message[2 * i + 1])) : "";
      return redactText(part) + value;
    }).join("");
  }
  let message = "";
  let from = 0;
  for (const match of template.matchAll(/\{\{|\}\}|\{\s*([\w.-]+)\s*\}/g)) {
    message += redactText(template.slice(from, match.index));
    from = match.index + match[0].length;
    const name = match[1];
    if (name === undefined) message += match[0][0];
    else message += Object.hasOwn(properties, name) ? shown(properties[name]) : match[0];
  }
  return message + redactText(template.slice(from));
}

function iso(timestamp: number): string {
  const date = new Date(timestamp);
  return Number.isNaN(date.getTime()) ? "0000-00-00T00:00:00.000Z" : date.toISOString();
}

/** One JSON object a line. */
export const formatJson: LineFormatter = (record) => {
  const properties = redactProperties(record.properties);
  const line: Record<string, unknown> = {
    ts: iso(record.timestamp),
    level: LEVEL_NAMES[record.level],
    target: record.category.join("::"),
    msg: messageOf(record, properties),
  };
  for (const [name, value] of Object.entries(properties)) {
    line[RESERVED.has(name) ? `${name}_` : name] = value;
  }
  return JSON.stringify(line) + "\n";
};

/** Control characters of a value or message must not move the cursor or fake another line. */
function printable(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replaceAll(/[\x00-\x1f\x7f-\x9f\u2028\u2029]/g, (char) => JSON.stringify(char).slice(1, -1));
}

function keyValue(name: string, value: unknown): string {
  const text = shown(value);
  const quoted = typeof value === "string" && (text === "" || /[\s"=]/.test(text))
    ? JSON.stringify(text)
    : text;
  return `${name}=${printable(quoted)}`;
}

function errorLines(name: string, error: Record<string, unknown>, indent: string): string {
  const head = typeof error.stack === "string" ? error.stack : `${error.name}: ${error.message}`;
  const lines = `${name}: ${head}`.split("\n").map((line) => indent + printable(line.trimEnd())).join("\n");
  const cause = error.cause;
  if (cause === undefined) return `${lines}\n`;
  return isError(cause)
    ? `${lines}\n${errorLines("cause", cause, `${indent}  `)}`
    : `${lines}\n${indent}  cause: ${printable(shown(cause))}\n`;
}

function isError(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && "name" in value && "message" in value;
}

/** A line for people; errors follow on lines of their own. `colours` for terminals. */
export function formatHuman(options: { colours: boolean }): LineFormatter {
  const paint = (text: string, colour: string) => options.colours ? `\x1b[${colour}m${text}\x1b[0m` : text;
  return (record) => {
    const properties = redactProperties(record.properties);
    const level = LEVEL_NAMES[record.level];
    const used = typeof record.rawMessage === "string" ? record.rawMessage : "";
    let line = paint(iso(record.timestamp).replace("T", " "), "90") + " " +
      paint(level.toUpperCase().padEnd(5), COLOURS[level] ?? "0") + " " +
      paint(record.category.join("::"), "36") + " " + printable(messageOf(record, properties));
    let errors = "";
    for (const [name, value] of Object.entries(properties)) {
      if (record.properties[name] instanceof Error && isError(value)) {
        errors += errorLines(name, value, "    ");
      } else if (!used.includes(`{${name}}`)) line += " " + keyValue(name, value);
    }
    return `${line}\n${errors}`;
  };
}
