/**
 * What a backup costs writers: enqueues at a steady rate over QUIC, with and without a backup being made, in turns in
 * one run. Prints p50 and p99 of both, and their difference and ratio.
 *
 *   deno run -A tests/bench/backup_latency.ts [--backend file] [--messages 20000] [--rounds 4] [--rate 200]
 */
import { parseArgs } from "node:util";
import { callControl, type JsonObject } from "../../mod/admin/control.ts";
import { randomBytes } from "../../mod/base/bytes.ts";
import { freeUdpPort, ServerProcess } from "../support/server_process.ts";
import { newAccount, newDevice, type TestClient } from "../support/test_client.ts";

const FILL_BYTES = 4096;
const PAYLOAD_BYTES = 512;
const FILL_AT_ONCE = 64;

const { values } = parseArgs({
  options: {
    backend: { type: "string", default: "sqlcipher" },
    messages: { type: "string", default: "20000" },
    rounds: { type: "string", default: "4" },
    rate: { type: "string", default: "200" },
    seconds: { type: "string", default: "4" },
  },
});

/** Sends at a steady rate, whether answers come or not, until told; adds each latency in milliseconds. */
class Load {
  readonly #sender: TestClient;
  readonly #to: Uint8Array;
  #latencies: number[] = [];
  readonly #timer: ReturnType<typeof setInterval>;
  readonly #inFlight = new Set<Promise<void>>();

  constructor(sender: TestClient, to: Uint8Array, perSecond: number) {
    this.#sender = sender;
    this.#to = to;
    let due = performance.now();
    this.#timer = setInterval(() => {
      for (; due <= performance.now(); due += 1000 / perSecond) this.#send(due);
    }, 1);
  }

  #send(due: number): void {
    const into = this.#latencies;
    const sending = this.#sender.enqueue([this.#to], { payload: randomBytes(PAYLOAD_BYTES) })
      .then(() => void into.push(performance.now() - due))
      .finally(() => this.#inFlight.delete(sending));
    this.#inFlight.add(sending);
  }

  /** Runs `work`; the latencies of what was sent meanwhile. */
  async during(work: () => Promise<void>): Promise<number[]> {
    const mine = this.#latencies = [];
    await work();
    this.#latencies = [];
    await Promise.all(this.#inFlight);
    return mine;
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await Promise.all(this.#inFlight);
  }
}

async function fill(sender: TestClient, to: Uint8Array, messages: number): Promise<void> {
  for (let sent = 0; sent < messages; sent += FILL_AT_ONCE) {
    await Promise.all(
      Array.from({ length: FILL_AT_ONCE }, () => sender.enqueue([to], { payload: randomBytes(FILL_BYTES) })),
    );
  }
}

function quantile(latencies: readonly number[], share: number): number {
  const sorted = [...latencies].sort((a, b) => a - b);
  return Math.round((sorted[Math.floor(sorted.length * share)] ?? NaN) * 100) / 100;
}

async function main(): Promise<void> {
  const dataDir = await Deno.makeTempDir({ prefix: "qpq-bench-" });
  const wide = ["--limits-queue-depth-max", "1000000", "--limits-queue-bytes-max", "10GiB"];
  const flags = ["--store-backend", values.backend, ...wide, "--limits-request-rate", "100000"];
  try {
    await using server = await ServerProcess.start({ dataDir, port: freeUdpPort(), flags });
    await using sender = await newAccount(server, "sender");
    await using receiver = await newDevice(server, "sender");
    await fill(sender, receiver.deviceId, Number(values.messages));
    const load = new Load(sender, receiver.deviceId, Number(values.rate));
    const span = Number(values.seconds) * 1000;
    const [quiet, busy]: [number[], number[]] = [[], []];
    let [backups, bytes] = [0, 0];
    for (let round = 0; round < Number(values.rounds); round++) {
      quiet.push(...await load.during(() => new Promise((resolve) => setTimeout(resolve, span))));
      busy.push(
        ...await load.during(async () => {
          const end = performance.now() + span;
          do {
            const made = await callControl(dataDir, { name: "backup create" }) as JsonObject;
            bytes = made["bytes"] as number;
            backups++;
          } while (performance.now() < end);
        }),
      );
    }
    await load.stop();
    const [quietP99, backupP99] = [quantile(quiet, 0.99), quantile(busy, 0.99)];
    console.log(JSON.stringify({
      backend: values.backend,
      storeMegabytes: Math.round(bytes / 1e6),
      backups,
      quiet: { enqueues: quiet.length, p50Ms: quantile(quiet, 0.5), p99Ms: quietP99 },
      backup: { enqueues: busy.length, p50Ms: quantile(busy, 0.5), p99Ms: backupP99 },
      addedP99Ms: Math.round((backupP99 - quietP99) * 100) / 100,
      ratio: Math.round(backupP99 / quietP99 * 100) / 100,
    }));
  } finally {
    await Deno.remove(dataDir, { recursive: true });
  }
}

await main();
