/** What is wrong with a configuration: gathered, so that all of it is told at once. */

/** One thing that is wrong, or worth a warning. Never holds the value of a secret. */
export interface Problem {
  /** Option key, or the unknown name as it was written. */
  readonly key: string;
  /** Where the value came from: `qpq-server.toml line 3`, `QPQ_LISTEN`, `--listen`; "" when from nowhere. */
  readonly from: string;
  /** The rest of the sentence. */
  readonly text: string;
}

/** A problem as one line. */
export function problemLine(problem: Problem): string {
  return `${problem.key}${problem.from ? ` (${problem.from})` : ""}: ${problem.text}`;
}

/** The configuration cannot be used; the message has one line for each problem. */
export class ConfigError extends Error {
  override name = "ConfigError";
  readonly problems: readonly Problem[];

  constructor(problems: readonly Problem[]) {
    const count = problems.length === 1 ? "1 problem" : `${problems.length} problems`;
    super(
      `Cannot use the configuration: ${count}\n${
        problems.map((each) => `  ${problemLine(each)}`).join("\n")
      }`,
    );
    this.problems = problems;
  }
}

/** Edits (insert, delete, change, swap neighbours) that turn `a` into `b`. */
export function editDistance(a: string, b: string): number {
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const changed = rows[i - 1]![j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      let best = Math.min(changed, rows[i - 1]![j]! + 1, row[j - 1]! + 1);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        best = Math.min(best, rows[i - 2]![j - 2]! + 1);
      }
      row.push(best);
    }
    rows.push(row);
  }
  return rows[a.length]![b.length]!;
}

/** The known name closest to `name`, with or without its group, if it is close enough to be meant. */
export function nearestName(name: string, known: readonly string[]): string | undefined {
  const wanted = name.toLowerCase().slice(0, 100);
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.floor(wanted.length / 3)) + 1;
  for (const candidate of known) {
    const known = candidate.toLowerCase();
    const tail = known.slice(known.indexOf(".") + 1);
    const distance = Math.min(
      editDistance(wanted, known),
      editDistance(wanted, tail) + (tail === known ? 0 : 1),
    );
    if (distance >= bestDistance) continue;
    best = candidate;
    bestDistance = distance;
  }
  return best;
}

/** The sentence about a name that is not known. */
export function unknownText(kind: string, name: string, known: readonly string[]): string {
  const nearest = nearestName(name, known);
  return nearest ? `unknown ${kind}; did you mean ${nearest}?` : `unknown ${kind}`;
}
