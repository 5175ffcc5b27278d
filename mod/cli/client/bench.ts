/** `bench WORKLOAD`: a load generator for whoever runs or builds a server. */
import { type Command, InvalidArgumentError, Option } from "commander";
import { runBench } from "../../client/bench/bench.ts";
import type { LoadOptions } from "../../client/bench/load.ts";
import {
  LOAD_DEFAULTS,
  WORKLOAD_NAMES,
  type WorkloadName,
  workloadOf,
} from "../../client/bench/workloads.ts";
import { nearestName } from "../../config/problems.ts";
import { readBytes, readDuration, type Reader, readInteger, Refusal } from "../../config/values.ts";
import { type Terminal, UsageError } from "../terminal.ts";
import { progressText, resultJson, resultText, stageText } from "./bench_report.ts";
import { type Context, example, runCommand } from "./context.ts";
import { accessToken } from "./server_choice.ts";
import { targetOf } from "./target.ts";

const DAY_MS = 24 * 3_600_000;
const COUNT_MAX = 1e9;

/** The flags, read. */
interface BenchFlags extends Partial<LoadOptions> {
  readonly durationMs: number;
  readonly warmUpMs: number;
  readonly operations?: number;
  readonly ackedLog?: string;
  readonly keep?: boolean;
}

/** Adds the command. */
export function addBench(client: Command, terminal: Terminal): void {
  const lines = WORKLOAD_NAMES.map((name) => `  ${name.padEnd(10)} ${workloadOf(name).text}`);
  const bench = client.command("bench").argument("<workload>", "what to do; they are listed below")
    .description("measure a server with a load generator; start it with --limits-profile bench")
    .addHelpText(
      "after",
      `\nWorkloads:\n${lines.join("\n")}\n` + example(
        terminal,
        "--server 127.0.0.1:7000 --auth-token-file data/secrets/auth-token bench enqueue",
        "bench pingpong --connections 50 --rate 5000 --duration 30s",
      ),
    )
    .action((name: string, _options, command: Command) =>
      runCommand(terminal, command, (context) => measure(context, workloadNamed(name), readFlags(command)))
    );
  addLoadFlags(bench);
}

function addLoadFlags(bench: Command): void {
  const count = readInteger(1, COUNT_MAX);
  const add = (flags: string, text: string, read: Reader<unknown>) =>
    bench.addOption(new Option(flags, text).argParser(parser(read)));
  const { connections, inFlight, payloadBytes, recipients, backlog } = LOAD_DEFAULTS;
  add("--connections <n>", `connections that send, or drain (default: ${connections}; fanout: 4)`, count);
  add(
    "--in-flight <n>",
    `requests of each connection in flight (default: ${inFlight}; pingpong: 1; fanout: 4)`,
    count,
  );
  add("--payload <size>", `bytes of each message (default: ${payloadBytes})`, readBytes(16, 4 << 20));
  add(
    "--recipients <n>",
    `queues that get messages (default: ${recipients}; fanout, each message to all: 100)`,
    count,
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
  bench.option("--acked-log <file>", "write what was acknowledged, for bench verify; its recipients stay");
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

function workloadNamed(name: string): WorkloadName {
  const found = WORKLOAD_NAMES.find((each) => each === name);
  if (found) return found;
  const nearest = nearestName(name, WORKLOAD_NAMES);
  throw new UsageError(
    `There is no workload ${name}${
      nearest ? `: did you mean ${nearest}?` : ` (${WORKLOAD_NAMES.join(", ")})`
    }`,
  );
}

async function measure(context: Context, workload: WorkloadName, flags: BenchFlags): Promise<void> {
  const { terminal, output } = context;
  const { durationMs, warmUpMs, operations, ackedLog, keep, ...chosen } = flags;
  const { unit, defaults } = workloadOf(workload);
  const target = await targetOf(context);
  const token = await accessToken(context.flags, terminal);
  const interrupted = new AbortController();
  terminal.onInterrupt(() => interrupted.abort());
  const result = await runBench({ ...target, accessToken: token }, {
    workload,
    options: { ...LOAD_DEFAULTS, ...defaults, ...chosen },
    span: { durationMs, warmUpMs, operations: operations ?? null },
    ackedLogPath: ackedLog,
    keep: keep ?? false,
    onStage: (stage) => output.talk(stageText(workload, stage)),
    onProgress: (progress) => output.talk(progressText(progress, unit)),
    signal: interrupted.signal,
  });
  output.data(resultJson(result), resultText(result, unit));
}
