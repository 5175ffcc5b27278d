/**
 * Logging: loggers by name, one sink, a filter that can change while the program runs. Lines go to stderr unless
 * told otherwise. Formats are in log_format.ts, what may be shown in log_redact.ts, the filter's grammar in
 * log_filter.ts. Without configureLogs() nothing is logged, which is what a library wants.
 */
import {
  configureSync,
  getLogger,
  type Logger,
  type LogLevel,
  type LogRecord,
  resetSync,
} from "@logtape/logtape";
import { type Directive, type FilterLevel, parseFilter } from "./log_filter.ts";
import { formatHuman, formatJson, type LineFormatter } from "./log_format.ts";

export type { Logger } from "@logtape/logtape";
export {
  type Directive,
  FILTER_LEVELS,
  type FilterLevel,
  type FilterResult,
  parseFilter,
} from "./log_filter.ts";
export { hideInLogs, maskAddresses } from "./log_redact.ts";

/** How lines look. */
export type LogFormat = "human" | "json";

/** What configureLogs() takes. */
export interface LogOptions {
  /** A directive list, checked before: see parseFilter(). */
  readonly filter: string;
  readonly format: LogFormat;
  /** Gets each line, which ends with a newline. Default: stderr. */
  readonly write?: (line: string) => void;
  /** Colours in human lines. Default: when stderr is a terminal and NO_COLOR is not set. */
  readonly colours?: boolean;
}

const LEVELS: Record<FilterLevel, LogLevel | null> = {
  trace: "trace",
  debug: "debug",
  info: "info",
  warn: "warning",
  error: "error",
  off: null,
};

const encoder = new TextEncoder();

/** Writes to stderr; a stderr that is gone or full must not take the program with it. */
function writeStderr(line: string): void {
  const bytes = encoder.encode(line);
  try {
    for (let written = 0; written < bytes.length;) written += Deno.stderr.writeSync(bytes.subarray(written));
  } catch {
    // There is no place left to say so.
  }
}

/** The logger `qpq::name`; `name` may have parts: `server::tls`. Cheap to call once per file. */
export function logger(name: string): Logger {
  return getLogger(["qpq", ...name.split("::")]);
}

/** `auto` means: for people on a terminal outside production, otherwise JSON. */
export function chooseLogFormat(
  format: "auto" | LogFormat,
  where: { terminal: boolean; production: boolean },
): LogFormat {
  if (format !== "auto") return format;
  return where.terminal && !where.production ? "human" : "json";
}

let sink: ((record: LogRecord) => void) | undefined;

function apply(directives: readonly Directive[], out: (record: LogRecord) => void): void {
  configureSync({
    reset: true,
    sinks: { out },
    loggers: [
      // Each overrides its parent's sinks: a parent's level would otherwise hold back what a child lets through.
      ...directives.map(({ target, level }) => ({
        category: [...target],
        sinks: ["out" as const],
        parentSinks: "override" as const,
        lowestLevel: LEVELS[level],
      })),
      {
        category: ["logtape", "meta"],
        sinks: ["out" as const],
        parentSinks: "override" as const,
        lowestLevel: "error" as const,
      },
    ],
  });
}

/** Starts logging, or changes how. Throws RangeError for a filter that parseFilter() refuses. */
export function configureLogs(options: LogOptions): void {
  const parsed = parseFilter(options.filter);
  if (!parsed.ok) throw new RangeError(`Cannot use the log filter: ${parsed.problems.join("; ")}`);
  const write = options.write ?? writeStderr;
  const colours = options.colours ?? (!options.write && !Deno.noColor && Deno.stderr.isTerminal());
  const format: LineFormatter = options.format === "json" ? formatJson : formatHuman({ colours });
  sink = (record) => {
    try {
      write(format(record));
    } catch {
      // A line that cannot be written is lost; whoever logs goes on.
    }
  };
  apply(parsed.directives, sink);
}

/** Changes the filter of the running program; returns problems in words, and then changes nothing. */
export function setLogFilter(text: string): readonly string[] {
  const parsed = parseFilter(text);
  if (!parsed.ok) return parsed.problems;
  if (sink) apply(parsed.directives, sink);
  return [];
}

/** Ends logging; for tests. */
export function stopLogs(): void {
  sink = undefined;
  resetSync();
}
