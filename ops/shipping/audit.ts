/**
 * `deno task audit`: known vulnerabilities of the locked packages, asked of the registry's advisory service by
 * `deno audit`, whose exit code does not tell a finding from a service that was not reached. Exit codes: 0 none known,
 * 3 a finding, 2 nothing is known, as nobody answered. 1 is Deno's own, as when it cannot fetch packages for the task.
 */

const ANSWER_MS_MAX = 60_000;

/** How a run of `deno audit` ended. */
export interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** What it means. */
export type Verdict = "none" | "found" | "unknown";

const EXIT_CODES: Readonly<Record<Verdict, number>> = { none: 0, found: 3, unknown: 2 };

/** Only what the service has answered counts: whatever else comes is no answer. */
export function verdictOf({ code, out }: Ended): Verdict {
  if (code === 0 && /^No known vulnerabilities found$/m.test(out)) return "none";
  return code !== 0 && /^Found \d+ vulnerabilit/m.test(out) ? "found" : "unknown";
}

/** Asks; `env` as for `deno audit`. */
export async function audit(env: Readonly<Record<string, string>> = {}): Promise<Ended> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["audit", "--frozen-lockfile"],
    env: { NO_COLOR: "1", ...env },
    stdin: "null",
    signal: AbortSignal.timeout(ANSWER_MS_MAX),
  }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, out: text(stdout), err: text(stderr) };
}

async function main(): Promise<number> {
  const ended = await audit();
  const verdict = verdictOf(ended);
  if (verdict !== "unknown") {
    console.log(ended.out.trimEnd());
    return EXIT_CODES[verdict];
  }
  const reason = /^error: (.*)$/m.exec(ended.err)?.[1] ?? `no answer within ${ANSWER_MS_MAX / 1000} s`;
  console.error(
    `error: NOT AUDITED. The registry's advisory service did not answer: ${reason}\n` +
      "  This is no finding, and no all-clear: a mirror often has no such service, and an offline machine reaches none.\n" +
      "  Run it with this deno.lock where the registry is reachable, or name one that answers: NPM_CONFIG_REGISTRY=URL",
  );
  return EXIT_CODES[verdict];
}

if (import.meta.main) Deno.exit(await main());
