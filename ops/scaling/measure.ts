/**
 * Measures what sizing needs, on loopback, in temporary folders: `deno task scaling [--quick] [--json] [--write]
 * [--folder DIR]`. `--write` replaces measured.json and the tables of ops/scaling-guide.md. Linux only: it reads /proc.
 */
import { join } from "node:path";
import { callControl } from "../../mod/admin/control.ts";
import { randomBytes } from "../../mod/base/bytes.ts";
import { VERSION } from "../../mod/base/version.ts";
import type { StoreBackend } from "../../mod/store/open.ts";
import {
  type DiskUse,
  type Figures,
  type KeyChange,
  tables,
  type Throughput,
  type Work,
  writeFigures,
} from "./figures.ts";
import { connectAll, LoadDevice, passwordLogins } from "./load_device.ts";
import { describeMachine, quantile } from "./machine.ts";
import { type CpuTime, idBytes, MeasuredServer } from "./measured_server.ts";

const BACKENDS: readonly StoreBackend[] = ["sqlcipher", "file"];
const IN_FLIGHT = [1, 16, 256];
const RECIPIENTS = 50;
const PAYLOAD_BYTES = 16 << 10;

/** How much of each is done. */
interface Plan {
  readonly connections: number;
  readonly logins: number;
  /** Messages by requests in flight. */
  readonly messages: Readonly<Record<number, number>>;
  /** Messages one at a time from sender to recipient. */
  readonly deliveries: number;
  /** Messages of 4,096 bytes; and a tenth of it to many recipients. */
  readonly large: number;
  /** MiB of the store whose key is changed. */
  readonly keyChangeMib: number;
}

const FULL: Plan = {
  connections: 1000,
  logins: 100,
  messages: { 1: 1500, 16: 10_000, 256: 20_000 },
  deliveries: 2000,
  large: 5000,
  keyChangeMib: 300,
};
const QUICK: Plan = {
  connections: 40,
  logins: 3,
  messages: { 1: 50, 16: 300, 256: 1000 },
  deliveries: 50,
  large: 300,
  keyChangeMib: 8,
};
/** Connections that are there before memory is counted: buffers that all share are then in place. */
const WARM_CONNECTIONS = 20;

/** Where to measure, and how much. */
interface Run {
  readonly plan: Plan;
  readonly folder: string | null;
  readonly say: (text: string) => void;
}

/** Measures everything. */
export async function measure(
  options: { quick: boolean; folder: string | null; say: (text: string) => void },
) {
  const run: Run = { plan: options.quick ? QUICK : FULL, folder: options.folder, say: options.say };
  const machine = await describeMachine(options.folder);
  const memory = await measureMemory(run);
  const work = await measureWork(run, memory.connect);
  const queues = [];
  for (const backend of BACKENDS) queues.push(await measureQueues(run, backend));
  const keyChange = [];
  for (const backend of BACKENDS) keyChange.push(await measureKeyChange(run, backend));
  return {
    format: 1,
    version: VERSION,
    day: new Date().toISOString().slice(0, 10),
    machine,
    quick: options.quick,
    memory: memory.figures,
    work,
    throughput: queues.flatMap(({ throughput }) => throughput),
    disk: queues.map(({ disk }) => disk),
    keyChange,
  } satisfies Figures;
}

/** Resident memory with many connections less that with few, for each way to hold one. */
async function measureMemory({ plan, folder, say }: Run) {
  let baseBytes = 0;
  let connect: Work = { cpuMs: 0, mainMs: 0 };
  const bytes: number[] = [];
  for (const use of ["idle", "waiting", "subscribed"] as const) {
    say(`memory of ${plan.connections} connections, ${use}`);
    await using server = await MeasuredServer.make("sqlcipher", folder);
    const seeded = await server.seed(WARM_CONNECTIONS + plan.connections);
    await server.start();
    const hold = async (device: LoadDevice) => {
      if (use === "waiting") device.park();
      if (use === "subscribed") await device.subscribe(() => {});
    };
    baseBytes = await server.settledMemory();
    const warm = await connectAll(server, seeded.slice(0, WARM_CONNECTIONS));
    for (const device of warm) await hold(device);
    const before = await server.settledMemory();
    const since = await server.cpu();
    const devices = await connectAll(server, seeded.slice(WARM_CONNECTIONS));
    if (use === "idle") connect = perUnit(since, await server.cpu(), plan.connections);
    for (const device of devices) await hold(device);
    bytes.push((await server.settledMemory() - before) / plan.connections);
    await Promise.all([...warm, ...devices].map((device) => device[Symbol.asyncDispose]()));
  }
  const [idleBytes, waitingBytes, subscribedBytes] = bytes as [number, number, number];
  const { connections } = plan;
  return { connect, figures: { connections, baseBytes, idleBytes, waitingBytes, subscribedBytes } };
}

async function measureWork({ plan, folder, say }: Run, connect: Work): Promise<Figures["work"]> {
  await using server = await MeasuredServer.make("sqlcipher", folder);
  const seeded = await server.seed(1 + RECIPIENTS);
  await server.start();
  say(`${plan.logins} logins`);
  const logIn = await passwordLogins(server);
  const login = await workOf(server, plan.logins, async () => {
    for (let index = 0; index < plan.logins; index++) await logIn();
  });
  say(`${plan.deliveries} messages from sender to recipient`);
  const [sender, recipient] = await connectAll(server, seeded.slice(0, 2)) as [LoadDevice, LoadDevice];
  let arrived = Promise.withResolvers<void>();
  await recipient.subscribe(() => arrived.resolve());
  const payload = randomBytes(512);
  const deliver = async (count: number) => {
    for (let index = 0; index < count; index++) {
      arrived = Promise.withResolvers<void>();
      await Promise.all([sender.send([recipient.id], payload), arrived.promise]);
    }
  };
  await deliver(Math.ceil(plan.deliveries / 10)); // compiled code first
  const message = await workOf(server, plan.deliveries, () => deliver(plan.deliveries));
  await recipient[Symbol.asyncDispose]();
  say(`messages to ${RECIPIENTS} recipients`);
  const everybody = seeded.slice(1).map(({ device }) => idBytes(device.deviceId));
  const sends = Math.ceil(plan.deliveries / 5);
  const sendTo = (recipients: readonly Uint8Array[]) =>
    workOf(server, sends, async () => {
      for (let index = 0; index < sends; index++) await sender.send(recipients, payload);
    });
  const [alone, many] = [await sendTo(everybody.slice(0, 1)), await sendTo(everybody)];
  await sender[Symbol.asyncDispose]();
  return { connect, login, message, recipient: difference(alone, many) };
}

/** Throughput at several depths, and the disk that the messages take once the server has stopped. */
async function measureQueues(
  { plan, folder, say }: Run,
  backend: StoreBackend,
): Promise<{ throughput: Throughput[]; disk: DiskUse }> {
  await using server = await MeasuredServer.make(backend, folder);
  const seeded = await server.seed(1 + RECIPIENTS);
  const [, ...recipients] = seeded.map(({ device }) => idBytes(device.deviceId));
  const begun = await server.storeBytes();
  const throughput: Throughput[] = [];
  await serving(server, async () => {
    await using sender = await LoadDevice.connect(server, seeded[0]!);
    for (const inFlight of IN_FLIGHT) {
      say(`${backend}: enqueue with ${inFlight} in flight`);
      throughput.push(
        await enqueueMany({ server, sender, recipients, inFlight, count: plan.messages[inFlight]! }),
      );
    }
  });
  const with512 = await server.storeBytes();
  const messages = IN_FLIGHT.reduce((sum, inFlight) => sum + plan.messages[inFlight]!, 0);
  say(`${backend}: disk of ${messages + plan.large} messages`);
  const fill = (to: readonly Uint8Array[], payload: Uint8Array, count: number) =>
    serving(server, async () => {
      await using sender = await LoadDevice.connect(server, seeded[0]!);
      await inParallel({ inFlight: 16, count }, () => sender.send(to, payload));
    });
  await fill(recipients.slice(0, 1), randomBytes(4096), plan.large);
  const with4096 = await server.storeBytes();
  const fannedOut = Math.ceil(plan.large / 10);
  await fill(recipients, randomBytes(512), fannedOut);
  const withMany = await server.storeBytes();
  const bytes512 = (with512 - begun) / messages;
  return {
    throughput,
    disk: {
      backend,
      bytes512,
      bytes4096: (with4096 - with512) / plan.large,
      bytesRecipient: ((withMany - with4096) / fannedOut - bytes512) / (RECIPIENTS - 1),
    },
  };
}

/** Changes the database key while messages go on, one at a time. */
async function measureKeyChange({ plan, folder, say }: Run, backend: StoreBackend): Promise<KeyChange> {
  say(`${backend}: change of the database key of ${plan.keyChangeMib} MiB`);
  await using server = await MeasuredServer.make(backend, folder);
  const seeded = await server.seed(2);
  await server.start();
  await using sender = await LoadDevice.connect(server, seeded[0]!);
  const to = [idBytes(seeded[1]!.device.deviceId)];
  const payload = randomBytes(PAYLOAD_BYTES);
  const count = plan.keyChangeMib * 1024 ** 2 / PAYLOAD_BYTES;
  await inParallel({ inFlight: 16, count }, () => sender.send(to, payload));
  const storeBytes = await server.storeBytes();
  let going = true;
  const begin = performance.now();
  const change = callControl(server.dataDir, { name: "rotate db-key" }).finally(() => going = false);
  let waitedMs = 0;
  while (going) {
    const sent = performance.now();
    await sender.send(to, payload.subarray(0, 512));
    waitedMs = Math.max(waitedMs, performance.now() - sent);
  }
  await change;
  const seconds = (performance.now() - begin) / 1000;
  return { backend, storeBytes, seconds, waitedSeconds: waitedMs / 1000 };
}

async function serving(server: MeasuredServer, work: () => Promise<void>): Promise<void> {
  await server.start();
  await work();
  await server.stop();
}

async function enqueueMany(
  { server, sender, recipients, inFlight, count }: {
    server: MeasuredServer;
    sender: LoadDevice;
    recipients: readonly Uint8Array[];
    inFlight: number;
    count: number;
  },
): Promise<Throughput> {
  const payload = randomBytes(512);
  const times: number[] = [];
  let next = 0;
  const send = async () => {
    const begin = performance.now();
    await sender.send([recipients[next++ % recipients.length]!], payload);
    times.push(performance.now() - begin);
  };
  const since = await server.cpu();
  const begin = performance.now();
  await inParallel({ inFlight, count }, send);
  const seconds = (performance.now() - begin) / 1000;
  const { cpuMs } = perUnit(since, await server.cpu(), count);
  return {
    backend: server.backend,
    inFlight,
    perSecond: count / seconds,
    p50Ms: quantile(times, 0.5),
    p99Ms: quantile(times, 0.99),
    cpuMs,
  };
}

async function inParallel(
  { inFlight, count }: { inFlight: number; count: number },
  work: () => Promise<void>,
): Promise<void> {
  let left = count;
  const worker = async () => {
    while (left-- > 0) await work();
  };
  await Promise.all(Array.from({ length: inFlight }, worker));
}

async function workOf(server: MeasuredServer, count: number, work: () => Promise<void>): Promise<Work> {
  const since = await server.cpu();
  await work();
  return perUnit(since, await server.cpu(), count);
}

function perUnit(before: CpuTime, after: CpuTime, count: number): Work {
  return { cpuMs: (after.all - before.all) / count, mainMs: (after.main - before.main) / count };
}

/** What each of the further recipients costs. Never nothing: a figure of a short run may drown in the clock's ticks. */
function difference(one: Work, many: Work): Work {
  const each = (a: number, b: number) => Math.max(0.001, (b - a) / (RECIPIENTS - 1));
  return { cpuMs: each(one.cpuMs, many.cpuMs), mainMs: each(one.mainMs, many.mainMs) };
}

if (import.meta.main) {
  const known = ["--quick", "--json", "--write", "--folder"];
  const folderAt = Deno.args.indexOf("--folder");
  const folder = folderAt < 0 ? null : Deno.args[folderAt + 1] ?? null;
  const unknown = Deno.args.filter((word, index) => !known.includes(word) && index !== folderAt + 1);
  if (unknown.length > 0 || Deno.build.os !== "linux") {
    console.error(
      Deno.build.os === "linux"
        ? `usage: deno task scaling [--quick] [--json] [--write] [--folder DIR]; not known: ${
          unknown.join(" ")
        }`
        : "This reads memory and processor time of the server in /proc: it needs Linux.",
    );
    Deno.exit(2);
  }
  if (folder !== null) await Deno.stat(join(folder, "."));
  const say = (text: string) => console.error(text);
  const figures = await measure({ quick: Deno.args.includes("--quick"), folder, say });
  if (Deno.args.includes("--write")) await writeFigures(figures);
  console.log(Deno.args.includes("--json") ? JSON.stringify(figures, null, 2) : tables(figures));
}
