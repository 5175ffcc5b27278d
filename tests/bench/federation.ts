/**
 * `deno task bench:federation [--seconds N] [--json]`: messages relayed between servers against local delivery, in one
 * run, with each engine: a second (64 requests in flight) and the time from Enqueue to the push, one message at a time;
 * and what one peer's outage costs the messages to another. Servers and clients share this process, so the rates are for
 * comparison with each other: `deno task bench` has those of a server by itself.
 */
import { parseArgs } from "node:util";
import { randomBytes } from "../../mod/base/bytes.ts";
import { FederationWorld } from "../support/federation_world.ts";
import { newAccount, type TestClient } from "../support/test_client.ts";

const IN_FLIGHT = 64;
const PAYLOAD_BYTES = 512;
const PINGS = 200;

/** A line of the result. */
interface Row {
  readonly what: string;
  readonly messagesPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** Where messages go, beside the receiver that is measured. */
interface Route {
  readonly from: TestClient;
  readonly to: TestClient;
  /** Empty: the sender's own server. */
  readonly domain: string;
  readonly beside?: { readonly domain: string; readonly deviceId: Uint8Array };
}

function send({ from, to, domain, beside }: Route) {
  const remote = [
    ...(domain === "" ? [] : [{ domain, recipients: [to.deviceId] }]),
    ...(beside ? [{ domain: beside.domain, recipients: [beside.deviceId] }] : []),
  ];
  const recipients = domain === "" ? [to.deviceId] : [];
  return from.connection.call("enqueue", {
    messageId: randomBytes(16),
    parts: [{ payload: randomBytes(PAYLOAD_BYTES), recipients, remote }],
  });
}

/** Calls back for each message that is pushed to a device, until it is aborted. */
async function* pushes(to: TestClient): AsyncGenerator<number> {
  const { cursor } = await to.connection.call("fetch", { entriesMax: 1 });
  for await (const batch of to.connection.subscribe({ after: cursor!.nextSeq - 1n, creditBytes: 16 << 20 })) {
    if (batch.entries.length === 0) {
      yield 0;
      continue;
    }
    await to.connection.call("ack", { through: batch.entries.at(-1)!.seq });
    yield batch.entries.length;
  }
}

async function rateOf(route: Route, seconds: number): Promise<number> {
  const arriving = pushes(route.to);
  await arriving.next();
  const begin = performance.now();
  const end = begin + seconds * 1000;
  let sent = 0;
  const lanes = Array.from({ length: IN_FLIGHT }, async () => {
    while (performance.now() < end) {
      await send(route);
      sent++;
    }
  });
  const sending = Promise.all(lanes);
  let done = false;
  sending.then(() => done = true);
  let received = 0;
  while (!done || received < sent) received += (await arriving.next()).value ?? 0;
  const elapsed = (performance.now() - begin) / 1000;
  await arriving.return(undefined);
  return received / elapsed;
}

async function latencyOf(route: Route): Promise<{ p50Ms: number; p99Ms: number }> {
  const arriving = pushes(route.to);
  await arriving.next();
  const times: number[] = [];
  for (let i = 0; i < PINGS; i++) {
    const begin = performance.now();
    const arrived = arriving.next();
    await send(route);
    await arrived;
    times.push(performance.now() - begin);
  }
  await arriving.return(undefined);
  times.sort((a, b) => a - b);
  const at = (share: number) => times[Math.floor(share * times.length)]!;
  return { p50Ms: at(0.5), p99Ms: at(0.99) };
}

async function measure(what: string, route: Route, seconds: number): Promise<Row> {
  await rateOf(route, seconds / 4); // warm
  const latency = await latencyOf(route);
  return { what, messagesPerSecond: await rateOf(route, seconds), ...latency };
}

const FLAGS = {
  "limits-request-rate": "1000000",
  "limits-request-burst": "1000000",
  "limits-sender-bytes-per-day": "100GiB",
  "limits-queue-depth-max": "1000000",
  "limits-queue-share-percent": "100",
  "federation-peer-messages-per-second": "1000000",
};

/** One engine: relayed, then relayed while another peer that gets the same messages is gone. */
async function measureEngine(engine: string, seconds: number): Promise<Row[]> {
  const domains = ["a.example", "b.example", "c.example"];
  await using world = await FederationWorld.start(domains, {
    flags: { ...FLAGS, "federation-engine": engine },
  });
  await using alice = await newAccount(world.at("a.example"), "alice");
  await using annie = await newAccount(world.at("a.example"), "annie");
  await using bob = await newAccount(world.at("b.example"), "bob");
  await using carol = await newAccount(world.at("c.example"), "carol");
  const relayed = { from: alice, to: bob, domain: "b.example" };
  const beside = { domain: "c.example", deviceId: carol.deviceId };
  const rows = [
    await measure("local", { from: alice, to: annie, domain: "" }, seconds),
    await measure(`relayed, ${engine}`, relayed, seconds),
    await measure(`relayed to two peers, ${engine}`, { ...relayed, beside }, seconds),
  ];
  await world.stop("c.example");
  rows.push(await measure(`the same, one of them gone, ${engine}`, { ...relayed, beside }, seconds));
  return rows;
}

const { values } = parseArgs({
  options: { seconds: { type: "string", default: "5" }, json: { type: "boolean" } },
});
const rows: Row[] = [];
for (const engine of ["deno", "quiche"]) {
  try {
    rows.push(...await measureEngine(engine, Number(values.seconds)));
  } catch (error) {
    console.error(`${engine}: ${error}`);
  }
}
if (values.json) console.log(JSON.stringify(rows));
else {
  console.log("                                             messages/s    p50 ms    p99 ms");
  for (const { what, messagesPerSecond, p50Ms, p99Ms } of rows) {
    const figures = [messagesPerSecond.toFixed(0).padStart(10), p50Ms.toFixed(2), p99Ms.toFixed(2)];
    console.log(`${what.padEnd(45)}${figures.map((figure) => figure.padStart(10)).join("")}`);
  }
}
