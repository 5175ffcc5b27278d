/** `verify`: is each message that a log says was acknowledged in its queue exactly once? Takes nothing out of them. */
import { QpqError } from "../../base/errors.ts";
import type { ServerLink } from "../identity.ts";
import { type AckedMessages, readAckedLog } from "./acked_log.ts";
import { BenchAccounts, type BenchDevice } from "./bench_accounts.ts";
import { BenchServer, type BenchTarget, inParallel } from "./bench_server.ts";
import { messageIdText, messageNumber } from "./enqueue_template.ts";

/** Queues looked at together. */
const AT_ONCE = 4;
/** So many ids are named; more are only counted. */
const NAMED_MAX = 10;

/** What became of acknowledged messages. A message for 100 recipients counts as 100. */
export interface Verdict {
  readonly acknowledged: number;
  readonly found: number;
  readonly missing: number;
  readonly duplicated: number;
  /** Messages of the run that the log does not name: acknowledged a moment before its end, or stored unheard. */
  readonly unlogged: number;
  /** Some of what is missing or duplicated: message id and the recipient's user name. */
  readonly examples: readonly string[];
}

/** Compares the queues with a log. Deletes the accounts when all is there, unless they are to be kept. */
export async function verifyAcked(
  path: string,
  options: { target?: BenchTarget | undefined; keep?: boolean } = {},
): Promise<Verdict> {
  const log = await readAckedLog(path);
  const server = new BenchServer(options.target ?? log);
  const accounts = new BenchAccounts(server, { run: log.run, made: log.recipients });
  const verdict = sum(
    await inParallel(log.recipients, AT_ONCE, async (device, index) => {
      const link = await comeBack(accounts, device);
      try {
        return await compare(link, { log, device, index });
      } finally {
        await link.connection.close();
      }
    }),
  );
  if (!options.keep && verdict.missing === 0 && verdict.duplicated === 0) await accounts.deleteAll();
  return verdict;
}

/** By the session, or, when a server no longer has that, by the password. */
async function comeBack(accounts: BenchAccounts, device: BenchDevice): Promise<ServerLink> {
  try {
    return await accounts.resume(device);
  } catch (error) {
    if (error instanceof QpqError && error.code === "sessionExpired") return await accounts.login(device);
    throw error;
  }
}

/** One queue. */
async function compare(
  { connection }: ServerLink,
  { log, device, index }: { log: AckedMessages; device: BenchDevice; index: number },
): Promise<Verdict> {
  const times = new Map<number, number>();
  for (const number of [...log.numbers[index]!, ...log.numbersOfAll]) times.set(number, 0);
  let unlogged = 0;
  for (let [after, empty] = [0n, false]; !empty;) {
    const page = await connection.call("fetch", { after });
    for (const { payload, seq } of page.entries) {
      after = seq;
      const number = messageNumber(payload, log.run);
      const before = number === undefined ? undefined : times.get(number);
      if (before !== undefined) times.set(number!, before + 1);
      else if (number !== undefined) unlogged++;
    }
    empty = page.empty;
  }
  const wrong = [...times].filter(([, count]) => count !== 1);
  const missing = wrong.filter(([, count]) => count === 0).length;
  return {
    acknowledged: times.size,
    found: times.size - missing,
    missing,
    duplicated: wrong.length - missing,
    unlogged,
    examples: wrong.slice(0, NAMED_MAX).map(([number, count]) =>
      `${messageIdText(log.run, number)} is ${
        count === 0 ? "missing" : `there ${count} times`
      } at ${device.userName}`
    ),
  };
}

function sum(verdicts: readonly Verdict[]): Verdict {
  const total = (name: "acknowledged" | "found" | "missing" | "duplicated" | "unlogged") =>
    verdicts.reduce((so, verdict) => so + verdict[name], 0);
  return {
    acknowledged: total("acknowledged"),
    found: total("found"),
    missing: total("missing"),
    duplicated: total("duplicated"),
    unlogged: total("unlogged"),
    examples: verdicts.flatMap(({ examples }) => examples).slice(0, NAMED_MAX),
  };
}
