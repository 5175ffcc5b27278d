/**
 * A server process under malformed frames, with honest clients and attackers in processes of their own: does it live,
 * grow, slow the honest down? All of it on this machine's processors, so the same is measured with attackers who send
 * good frames, or nothing at all: what that takes from the honest is not the frames' doing.
 */
import { ATTACKS } from "../bench/abuse/attacks.ts";
import { measureAttack, type Outcome, problemsOf } from "../bench/abuse/measure.ts";

const COMPARED_SECONDS = 20;
/** A run that is shorter looks for crashes and measures nothing. */
const COMPARED_FRAMES = 1_000_000;

/** Prints what was seen. Throws when the server ended, rejected without a handler, failed inside or kept something. */
export async function attackServerProcess(options: { frames: number; seed: number }): Promise<void> {
  const { frames, seed } = options;
  await attack("malformed frames, no limits", { frames, seed });
  if (frames < COMPARED_FRAMES) return;
  await attack("malformed frames, 40 connections", { seed });
  await attack("good frames, no limits", { seed });
  await attack("busy elsewhere", { seed });
}

async function attack(name: string, options: { frames?: number; seed: number }): Promise<void> {
  const attack = ATTACKS.find((each) => each.name === name)!;
  const outcome = await measureAttack(attack, { quietSeconds: 5, seconds: COMPARED_SECONDS, ...options });
  console.log(textOf(outcome));
  const problems = problemsOf(attack, outcome);
  if (outcome.heldBytes !== 0) problems.push(`${outcome.heldBytes} bytes of requests are still held`);
  if (problems.length > 0) throw new Error(`${name}: ${problems.join("; ")}`);
}

function textOf({ attack, seconds, tally, quiet, during, ...rest }: Outcome): string {
  const ratio = (of: "p50" | "p99") =>
    `${of} ${quiet.honest[of]} → ${during.honest[of]} ms (× ${
      (during.honest[of] / quiet.honest[of]).toFixed(2)
    })`;
  const shares = (phase: Outcome["quiet"]) =>
    Object.entries(phase.shares).map(([who, percent]) => `${who} ${percent} %`).join(", ");
  return [
    `${attack}: ${tally.requests} frames in ${seconds} s over ${tally.connections} connections`,
    `  honest: ${ratio("p50")}, ${ratio("p99")}, ${during.honest.trips} trips`,
    `  processors before: ${shares(quiet)}; during: ${shares(during)}`,
    `  memory of the server: ${rest.residentMb.join(" → ")} MB`,
    `  unhandled rejections ${rest.unhandledRejections}, internal errors ${rest.internalErrors}`,
  ].join("\n");
}
