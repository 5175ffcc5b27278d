/** `bench WORKLOAD`: a load generator; `bench verify`: is everything there that was acknowledged? */
import { type Command, InvalidArgumentError, Option } from "commander";
import { type BenchPart, type BenchRun, runBench } from "../../client/bench/bench.ts";
import type { BenchTarget } from "../../client/bench/bench_server.ts";
import type { LoadOptions } from "../../client/bench/load.ts";
import { MIX_DEFAULT, partsOfMix } from "../../client/bench/mixed.ts";
import type { BenchResult } from "../../client/bench/run.ts";
import { type Verdict, verifyAcked } from "../../client/bench/verify.ts";
import { LOAD_DEFAULTS, loadOptions, WORKLOAD_NAMES, workloadOf } from "../../client/bench/workloads.ts";
import { messageOf, QpqError } from "../../base/errors.ts";
import { nearestName } from "../../config/problems.ts";
import { readBytes, readDuration, type Reader, readInteger, Refusal } from "../../config/values.ts";
import { type Terminal, UsageError } from "../terminal.ts";
import { progressText, resultJson, resultsText } from "./bench_report.ts";
import { type Context, example, runCommand } from "./context.ts";
import { accessToken } from "./server_choice.ts";
import { targetOf } from "./target.ts";

const DAY_MS = 24 * 3_600_000;
const COUNT_MAX = 1e9;
/** Each of them has memory of its own here. */
const CONNECTIONS_MAX = 100_000;
const IN_FLIGHT_MAX = 65_536;
const NAMES = [...WORKLOAD_NAMES, "mixed"];
/** Their messages stay where `verify` looks for them. */
const LOGGED = ["enqueue", "fanout"];

/** The flags, read. */
interface BenchFlags extends Partial<LoadOptions> {
  readonly durationMs: number;
  readonly warmUpMs: number;
  readonly operations?: number;
  readonly mix?: string;
  readonly ackedLog?: string;
  readonly keep?: boolean;
}

/** Adds the command. */
export function addBench(client: Command, terminal: Terminal): void {
  const rows = WORKLOAD_NAMES.map((name) => [name, workloadOf(name).text] as const);
  const lines = [...rows, ["mixed", "several of them at the same time (--mix)"] as const]
    .map(([name, text]) => `  ${name.padEnd(10)} ${text}`);
  const bench = client.command("bench").argument("<workload>", "what to do; they are listed below")
    .description("measure a server with a load generator; start it with --limits-profile bench")
    .addHelpText(
      "after",
      `\nWorkloads:\n${lines.join("\n")}\n` + example(
        terminal,
        "--server 127.0.0.1:7000 --auth-token-file data/secrets/auth-token bench enqueue",
        "bench pingpong --connections 50 --rate 5000 --duration 30s",
        "bench enqueue --acked-log acked.log && … bench verify --acked-log acked.log",
      ),
    )
    .action((name: string, _options, command: Command) =>
      runCommand(terminal, command, (context) => measure(context, name, readFlags(command)))
    );
  addLoadFlags(bench);
  bench.command("verify").description("is each message that a log names in its queue, exactly once?")
    .addHelpText("after", example(terminal, "bench verify --acked-log acked.log"))
    .action((_options, command: Command) =>
      runCommand(terminal, command, (context) => verify(context, command.optsWithGlobals()))
    );
}

function addLoadFlags(bench: Command): void {
  const count = readInteger(1, COUNT_MAX);
  const add = (flags: string, text: string, read: Reader<unknown>) =>
    bench.addOption(new Option(flags, text).argParser(parser(read)));
  const { connections, inFlight, payloadBytes, recipients, backlog } = LOAD_DEFAULTS;
  const many = readInteger(1, CONNECTIONS_MAX);
  add(
    "--connections <n>",
    `connections that send, drain, or are held (default: ${connections}; reconnect and idle: 1000)`,
    many,
  );
  add(
    "--in-flight <n>",
    `requests of each connection in flight (default: ${inFlight}; pingpong: 1; fanout: 4)`,
    readInteger(1, IN_FLIGHT_MAX),
  );
  add("--payload <size>", `bytes of each message (default: ${payloadBytes})`, readBytes(16, 4 << 20));
  add(
    "--recipients <n>",
    `queues that get messages (default: ${recipients}; fanout, each message to all: 100)`,
    many,
  );
  add("--backlog <n>", `messages that drain finds (default: ${backlog})`, count);
  add("--duration <time>", "how long to measure (default: 10s)", readDuration(1, DAY_MS));
  add("--warm-up <time>", "how long to work before that, unmeasured (default: 2s)", readDuration(0, DAY_MS));
  add("--messages <n>", "end after so many operations at the latest, without a warm-up", count);
  add("--rate <n>", "operations in a second, by a schedule: latency counts from when one was due", count);
  bench.addOption(
    new Option("--receive <how>", "how pingpong's recipients wait (default: subscribe)")
      .choices(["subscribe", "fetch-wait"]),
  );
  bench.option(
    "--mix <names>",
    `what mixed runs, and with how many connections: pingpong,login:4 (default: ${MIX_DEFAULT})`,
  );
  bench.option(
    "--acked-log <file>",
    "write what was acknowledged (enqueue, fanout), for verify; keeps recipients",
  );
  bench.option("--keep", "leave the bench accounts on the server");
}

/** A value of an option's kind, or commander's refusal. */
function parser(read: Reader<unknown>): (raw: string) => unknown {
  return (raw) => {
    const value = read(raw);
    if (value instanceof Refusal) throw new InvalidArgumentError(`It ${value.text}.`);
    return value;
  };
}

function readFlags(command: Command): BenchFlags {
  const { payload, duration, warmUp, messages, rate, receive, ...same } = command.opts();
  return {
    ...same,
    durationMs: duration ?? (messages === undefined ? 10_000 : DAY_MS),
    warmUpMs: warmUp ?? 2_000,
    ...(payload === undefined ? {} : { payloadBytes: payload }),
    ...(messages === undefined ? {} : { operations: messages }),
    ...(rate === undefined ? {} : { perSecond: rate }),
    ...(receive === undefined ? {} : { receive: receive === "subscribe" ? "subscribe" : "fetchWait" }),
  };
}

/** What a workload's name stands for. */
function partsOf(name: string, chosen: Partial<LoadOptions>, mix: string | undefined): BenchPart[] {
  if (mix !== undefined && name !== "mixed") throw new UsageError("--mix is for mixed");
  const workload = WORKLOAD_NAMES.find((each) => each === name);
  if (workload) return [{ workload, options: loadOptions(workload, chosen) }];
  if (name !== "mixed") {
    const nearest = nearestName(name, NAMES);
    throw new UsageError(
      `There is no workload ${name}${nearest ? `: did you mean ${nearest}?` : ` (${NAMES.join(", ")})`}`,
    );
  }
  try {
    return partsOfMix(mix ?? MIX_DEFAULT, chosen);
  } catch (error) {
    throw new UsageError(messageOf(error), { cause: error });
  }
}

async function measure(context: Context, name: string, flags: BenchFlags): Promise<void> {
  const { terminal, output } = context;
  const { durationMs, warmUpMs, operations, ackedLog, keep, mix, ...chosen } = flags;
  const parts = partsOf(name, chosen, mix);
  if (ackedLog !== undefined && !LOGGED.includes(name)) {
    throw new UsageError(`--acked-log is for ${LOGGED.join(" and ")}: the messages of ${name} do not stay`);
  }
  const target = { ...await targetOf(context), accessToken: await accessToken(context.flags, terminal) };
  const interrupted = new AbortController();
  terminal.onInterrupt(() => interrupted.abort());
  const { unit } = workloadOf(parts[0]!.workload);
  const results = await runExplained(target, {
    parts,
    span: { durationMs, warmUpMs, operations: operations ?? null },
    ackedLogPath: ackedLog,
    keep: keep ?? false,
    onStage: (stage) => output.talk(`${name}: ${stage}`),
    onProgress: (progress) => output.talk(progressText(progress, unit)),
    signal: interrupted.signal,
  });
  if (output.json) { for (const result of results) output.data(resultJson(result), ""); }
  else output.data({}, resultsText(results));
}

/** A server with its usual limits refuses a load generator at once: what to do is not "wait". */
async function runExplained(target: BenchTarget, run: BenchRun): Promise<BenchResult[]> {
  try {
    return await runBench(target, run);
  } catch (error) {
    if (!(error instanceof QpqError && error.code === "rateLimited")) throw error;
    throw new Error(`${error.message}\n  Start the server with --limits-profile bench while it is measured`, {
      cause: error,
    });
  }
}

async function verify(context: Context, flags: Pick<BenchFlags, "ackedLog" | "keep">): Promise<void> {
  const { output } = context;
  if (flags.ackedLog === undefined) throw new UsageError("Say which log: --acked-log FILE");
  const asked = context.flags.server === undefined ? undefined : await targetOf(context);
  const verdict = await verifyAcked(flags.ackedLog, { target: asked, keep: flags.keep ?? false });
  output.data({ ...verdict }, verdictText(verdict));
  const { missing, duplicated } = verdict;
  if (missing + duplicated > 0) {
    throw new Error(`${missing} are missing, ${duplicated} are there more than once`);
  }
}

function verdictText(verdict: Verdict): string {
  const { acknowledged, found, unlogged, examples } = verdict;
  return [
    `${found} of ${acknowledged} acknowledged messages are there; ${unlogged} more that the log does not name`,
    ...examples,
  ].join("\n");
}
