/**
 * A live server under malformed frames while honest clients talk: hostile connections, logged in and not, send frames
 * that are wrong in every way at hand and connect again when they are thrown out. Afterwards nothing of it is left, and
 * every honest message has come, once and in order. All in one process, so that it can be looked inside; how fast the
 * honest are is measured by live_processes.ts.
 */
import assert from "node:assert/strict";
import { concat, utf8, utf8Text } from "../../mod/base/bytes.ts";
import type { Stream } from "../../mod/transport/transport.ts";
import { RawStream } from "../support/raw_stream.ts";
import { newAccount, type TestClient } from "../support/test_client.ts";
import { startTestServer, type TestServer } from "../support/test_server.ts";
import { malformedFrame } from "./malformed.ts";
import { Random } from "./random.ts";

/** Connections that attack at once; half of them are logged in. */
const ATTACKERS = 4;
/** Frames written at a time. */
const BURST = 50;

/** What was seen. */
export interface LiveReport {
  readonly frames: number;
  readonly reconnects: number;
  readonly unhandledRejections: number;
  readonly honestMessages: number;
}

/** Attacks a server of its own. Throws when anything is lost, left behind or unhandled. */
export async function attackLiveServer(options: { frames: number; seed: number }): Promise<LiveReport> {
  const names = ["request-rate", "request-burst", "anonymous-request-rate", "connection-rate", "hello-rate"]
    .concat(
      "malformed-rate",
      "resume-rate",
      "registration-rate",
      "login-rate",
      "login-rate-address",
      "login-rate-account",
    );
  await using server = await startTestServer({
    flags: Object.fromEntries(names.map((name) => [`limits-${name}`, "1000000"])),
  });
  const metric = async (name: string) => {
    const { body } = await server.server.context.metrics.expose();
    return Number(new RegExp(`^${name} (\\S+)$`, "m").exec(body)![1]);
  };
  await using alice = await newAccount(server, "alice");
  await using bob = await newAccount(server, "bob");
  await using mallory = await newAccount(server, "mallory");
  const honest = new HonestPair(alice, bob);
  const attack = new Attack(server, mallory, options);
  const attacking = attack.run();
  while (!attack.over) await honest.trip();
  await attacking;
  await mallory[Symbol.asyncDispose]();

  const { registry, memory, requestsInFlight, delivery } = server.server.context;
  while (registry.count > 2) await honest.trip();
  await honest.end(); // a subscription counts as a request
  await requestsInFlight.idle();
  assert.equal(memory.used, 0, "bytes of requests are still held");
  assert.equal(delivery.waiters.count, 0, "waits are still parked");
  const unhandledRejections = await metric("qpq_unhandled_rejections_total");
  assert.equal(unhandledRejections, 0);
  assert.equal(await metric('qpq_request_errors_total\\{code="internal"\\}'), 0, "internal errors");
  return {
    frames: attack.sent,
    reconnects: attack.reconnects,
    unhandledRejections,
    honestMessages: honest.count,
  };
}

/** Two honest clients: one sends, the other gets what was sent, in order. */
class HonestPair {
  readonly #pushes;
  count = 0;

  constructor(readonly from: TestClient, readonly to: TestClient) {
    this.#pushes = to.connection.subscribe({ after: 0n, creditBytes: 1 << 24 });
  }

  /** One message there, and its acknowledgement. */
  async trip(): Promise<void> {
    const text = `honest ${++this.count}`;
    await this.from.enqueue([this.to.deviceId], { payload: utf8(text) });
    for (;;) {
      const { value, done } = await this.#pushes.next();
      assert.ok(!done, "the subscription ended");
      const [entry, ...more] = value.entries;
      if (!entry) continue;
      assert.deepEqual([utf8Text(entry.payload), more.length], [text, 0]);
      await this.to.connection.call("ack", { through: entry.seq });
      break;
    }
  }

  async end(): Promise<void> {
    await this.#pushes.return();
  }
}

/** The hostile side. */
class Attack {
  readonly #random: Random;
  sent = 0;
  reconnects = 0;
  over = false;

  constructor(
    readonly server: TestServer,
    readonly mallory: TestClient,
    readonly options: { frames: number; seed: number },
  ) {
    this.#random = new Random(options.seed);
  }

  async run(): Promise<void> {
    try {
      await Promise.all(Array.from({ length: ATTACKERS }, (_, i) => this.#attacker(i % 2 === 0)));
    } finally {
      this.over = true;
    }
  }

  async #attacker(loggedIn: boolean): Promise<void> {
    while (this.sent < this.options.frames) {
      await using raw = await this.#open(loggedIn);
      this.reconnects++;
      while (this.sent < this.options.frames && await this.#burst(raw));
    }
  }

  async #open(loggedIn: boolean): Promise<RawStream> {
    if (!loggedIn) return await RawStream.afterHello(this.server);
    const again = await this.mallory.again(this.server).catch(() => null);
    return again ? await again.rawStream() : await RawStream.afterHello(this.server);
  }

  /** False once the server has thrown the connection out. */
  async #burst(raw: RawStream): Promise<boolean> {
    let gone = false;
    raw.connection.closed.then(() => gone = true);
    const stream = await Promise.race([raw.connection.openStream(), raw.connection.closed.then(() => null)])
      .catch(() => null);
    if (!stream) return false;
    const reading = readAll(stream);
    await stream.write(concat(...Array.from({ length: BURST }, () => malformedFrame(this.#random)))).catch(
      () => gone = true,
    );
    this.sent += BURST;
    // Behind what came before the end every request is answered, and then the stream ends.
    if (this.#random.oneIn(4)) stream.abort();
    else await stream.closeWrite();
    await Promise.race([reading, raw.connection.closed]);
    stream.abort();
    return !gone;
  }
}

async function readAll(stream: Stream): Promise<void> {
  while (await stream.read());
}
