/** An outcome as a row of a table. */
import type { Attack } from "./attacks.ts";
import type { Outcome } from "./measure.ts";

const COLUMNS = [
  "attack",
  "held by",
  "retry-after",
  "attempts",
  "µs attacker",
  "µs server",
  "CPU server / attacker %",
  "p50 ms",
  "p99 ms",
];

/** The head of the table. */
export function abuseHeader(markdown: boolean): string {
  return markdown ? `${joined(COLUMNS)}\n${joined(COLUMNS.map(() => "---"))}` : COLUMNS.join("  ");
}

/** One row. Latencies are before → during the attack. */
export function abuseRow(
  attack: Attack,
  outcome: Outcome,
  options: { readonly markdown: boolean },
): string {
  const { tally, quiet, during, seconds } = outcome;
  const count = attack.unit === null ? 0 : attack.unit === "connection" ? tally.connections : tally.requests;
  const each = (share: number) => count === 0 ? "–" : String(Math.round(share * 1e4 * seconds / count));
  const extra = Math.max(0, during.shares.server - quiet.shares.server);
  const counted = [...attack.limits, ...attack.deadlines].map((name) =>
    `${name} ${outcome.hits[name] ?? outcome.missed[name] ?? 0}`
  );
  const cells = [
    attack.name,
    counted.join(", ") || "–",
    retryAfter(outcome),
    count === 0 ? "–" : `${count} ${attack.unit}s`,
    each(during.shares.attacker),
    each(extra),
    `${during.shares.server} / ${during.shares.attacker}`,
    change(quiet.honest.p50, during.honest.p50),
    change(quiet.honest.p99, during.honest.p99),
  ];
  return options.markdown ? joined(cells) : cells.join("  ");
}

function retryAfter({ tally }: Outcome): string {
  if (tally.refused === 0) return "–";
  return tally.withRetryAfter === 0 ? "no" : `yes, ${tally.withRetryAfter} of ${tally.refused}`;
}

function change(before: number, during: number): string {
  return `${before} → ${during} (× ${(during / before).toFixed(1)})`;
}

function joined(cells: readonly string[]): string {
  return `| ${cells.join(" | ")} |`;
}
