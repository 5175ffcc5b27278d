/**
 * `deno task soak [--minutes 30] [--rate 300]`: hours of use in small: rounds of mixed load, a minute each, by new
 * accounts that are deleted again, against one server. Shows memory, write-ahead log, store and latency after each
 * round, and fails when memory or the log grows. Latencies are shown as a ratio, since others may be at work on the
 * machine. Linux only.
 */
import { parseArgs } from "node:util";
import { MeasuredServer } from "../../ops/scaling/measured_server.ts";
import { runClient } from "./processes.ts";

/** The second half's median memory over the first half's. */
const GROWTH_MAX = 1.15;
/** What the store keeps its log at, and one large transaction above that. */
const WAL_BYTES_MAX = 96 << 20;
const SECONDS_OF_ROUND = 50;

interface Round {
  readonly perSecond: number;
  readonly p99Ms: number;
  readonly residentBytes: number;
  readonly walBytes: number;
  readonly storeBytes: number;
}

const { values } = parseArgs({
  options: { minutes: { type: "string", default: "30" }, rate: { type: "string", default: "300" } },
});

function median(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[numbers.length >> 1]!;
}

function mib(bytes: number): string {
  return (bytes / (1 << 20)).toFixed(1).padStart(8);
}

await using server = await MeasuredServer.make("sqlcipher", null);
await server.start();
const rounds: Round[] = [];
const mix = ["mixed", "--mix", "pingpong:8,fanout:1,login:1", "--rate", values.rate];
console.log("round  msgs/s   p99 ms  memory MiB   WAL MiB  store MiB");
for (let round = 1; round <= Number(values.minutes); round++) {
  const words = [...mix, "--duration", `${SECONDS_OF_ROUND}s`, "--warm-up", "1s"];
  const { perSecond, latencyMs } = await runClient(server, words);
  const now: Round = {
    perSecond,
    p99Ms: latencyMs.p99,
    residentBytes: await server.residentBytes(),
    walBytes: await server.walBytes(),
    storeBytes: await server.storeBytes(),
  };
  rounds.push(now);
  const [rate, p99] = [now.perSecond.toFixed(0).padStart(7), now.p99Ms.toFixed(1).padStart(8)];
  const sizes = [now.residentBytes, now.walBytes, now.storeBytes].map(mib).join("  ");
  console.log(`${String(round).padStart(5)} ${rate} ${p99}    ${sizes}`);
}
// The first rounds fill caches and heaps.
const settled = rounds.slice(Math.min(5, rounds.length >> 2));
const half = settled.length >> 1;
const ratio = (of: (round: Round) => number) =>
  median(settled.slice(half).map(of)) / median(settled.slice(0, Math.max(1, half)).map(of));
const growth = ratio((round) => round.residentBytes);
const walBytes = Math.max(...rounds.map((round) => round.walBytes));
console.log(
  `second half against first: memory x ${growth.toFixed(2)}, p99 x ${
    ratio((round) => round.p99Ms).toFixed(2)
  }; ` +
    `largest write-ahead log ${mib(walBytes).trim()} MiB`,
);
if (growth > GROWTH_MAX || walBytes > WAL_BYTES_MAX) {
  console.error("Something grows: see the table above");
  Deno.exitCode = 1;
}
