/**
 * The filter of QPQ_LOG: a list of directives such as `info`, `info,qpq::delivery=debug` or `off`. The directive
 * with the longest target that a logger is under decides; a level without a target is for everything else.
 */

/** Levels of the filter, most talkative first; `off` silences. */
export const FILTER_LEVELS = ["trace", "debug", "info", "warn", "error", "off"] as const;

/** A level of the filter. */
export type FilterLevel = typeof FILTER_LEVELS[number];

/** One directive; an empty target is everything. */
export interface Directive {
  readonly target: readonly string[];
  readonly level: FilterLevel;
}

/** Directives, or what is wrong with the text, in words. */
export type FilterResult =
  | { readonly ok: true; readonly directives: readonly Directive[] }
  | { readonly ok: false; readonly problems: readonly string[] };

/** What is logged where no directive applies, as with RUST_LOG. */
const UNNAMED_LEVEL: FilterLevel = "error";

const TARGET = /^[A-Za-z0-9_-]+(::[A-Za-z0-9_-]+)*$/;

function levelOf(text: string): FilterLevel | undefined {
  const lower = text.toLowerCase();
  if (lower === "warning") return "warn";
  return FILTER_LEVELS.find((level) => level === lower);
}

function parseDirective(text: string): Directive | string {
  const separator = text.indexOf("=");
  if (separator < 0) {
    const level = levelOf(text);
    if (level) return { target: [], level };
    // A target alone means all of it, as in RUST_LOG; a single unknown word is more likely a misspelt level.
    if (TARGET.test(text) && (text === "qpq" || text.includes("::"))) {
      return { target: text.split("::"), level: "trace" };
    }
    return `"${text}" is no level: use ${FILTER_LEVELS.join(", ")}, or target=level`;
  }
  const target = text.slice(0, separator).trim();
  const level = levelOf(text.slice(separator + 1).trim());
  if (!TARGET.test(target)) return `"${target}" is no target: write it like qpq or qpq::delivery`;
  if (!level) {
    return `"${text.slice(separator + 1).trim()}" is no level for ${target}: use ${FILTER_LEVELS.join(", ")}`;
  }
  return { target: target.split("::"), level };
}

/** Parses a directive list. Later directives for the same target win; blank ones are skipped. */
export function parseFilter(text: string): FilterResult {
  const byTarget = new Map<string, Directive>([["", { target: [], level: UNNAMED_LEVEL }]]);
  const problems: string[] = [];
  let found = 0;
  for (const part of text.split(",")) {
    const trimmed = part.trim();
    if (trimmed === "") continue;
    found++;
    const directive = parseDirective(trimmed);
    if (typeof directive === "string") problems.push(directive);
    else byTarget.set(directive.target.join("::"), directive);
  }
  if (found === 0) problems.push(`The filter is empty: use ${FILTER_LEVELS.join(", ")}, or target=level`);
  return problems.length > 0 ? { ok: false, problems } : { ok: true, directives: [...byTarget.values()] };
}
