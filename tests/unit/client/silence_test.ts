import assert from "node:assert/strict";
import { systemClock } from "../../../mod/base/clock.ts";
import { Uplink } from "../../../mod/client/messenger_uplink.ts";
import { SILENCE_MS, tellingOfSilence } from "../../../mod/client/silence.ts";
import { ClientState } from "../../../mod/client/state.ts";
import { ConnectError } from "../../../mod/transport/connect_error.ts";
import { connect } from "../../../mod/transport/deno_quic.ts";
import type { Connection, ConnectOptions } from "../../../mod/transport/transport.ts";
import { FakeClock } from "../../support/fake_clock.ts";
import { tempFolder } from "../../support/temp_folder.ts";

const server = { hostname: "127.0.0.1", port: 7000 };
const options = { ...server, identity: { kind: "roots" }, idleTimeoutMs: 1000 } as const;

/** An engine whose handshakes end when and how the test says. */
function handshakes() {
  const asked: { options: ConnectOptions; done: PromiseWithResolvers<Connection> }[] = [];
  return {
    asked,
    connect(options: ConnectOptions): Promise<Connection> {
      const done = Promise.withResolvers<Connection>();
      asked.push({ options, done });
      return done.promise;
    },
  };
}

const nobody = () => new ConnectError("unreachable", "Nobody answers");

Deno.test("tellingOfSilence() tells once, however many handshakes stay without an answer", async () => {
  const [clock, engine, told] = [new FakeClock(), handshakes(), [] as unknown[]];
  const patient = tellingOfSilence({
    clock,
    connect: engine.connect,
    onSilence: ({ port }) => told.push(port),
  });
  for (let handshake = 0; handshake < 2; handshake++) {
    const connecting = patient(options);
    await clock.advance(SILENCE_MS - 1);
    assert.equal(told.length, handshake);
    await clock.advance(1);
    assert.deepEqual(told, [7000]);
    engine.asked[handshake]!.done.reject(nobody());
    await assert.rejects(connecting, { problem: "unreachable" });
  }
});

Deno.test("tellingOfSilence() is silent when an answer comes, a failure too, and after a connection was made", async () => {
  const [clock, engine, told] = [new FakeClock(), handshakes(), [] as unknown[]];
  const patient = tellingOfSilence({ clock, connect: engine.connect, onSilence: () => told.push("told") });
  const failing = patient(options);
  engine.asked[0]!.done.reject(nobody());
  await assert.rejects(failing);
  await clock.advance(SILENCE_MS);
  const connection = {} as Connection;
  const connecting = patient(options);
  engine.asked[1]!.done.resolve(connection);
  assert.equal(await connecting, connection);
  const again = patient(options);
  await clock.advance(SILENCE_MS);
  engine.asked[2]!.done.reject(nobody());
  await assert.rejects(again);
  assert.deepEqual(told, []);
});

Deno.test("freshRetrying() gives a first handshake half the time of the second, and then says that nobody answers", async () => {
  await using folder = await tempFolder();
  await using state = await ClientState.open({ folder: folder.path });
  const [clock, engine] = [new FakeClock(), handshakes()];
  const uplink = new Uplink({
    ...{ state, clock, server, choice: undefined, accessToken: undefined },
    connect: engine.connect,
  });
  const connecting = assert.rejects(uplink.freshRetrying(), { problem: "unreachable" });
  for (const timeoutMs of [5_000, 10_000]) {
    while (engine.asked.length === 0) await clock.advance(100); // the wait between the two
    const { options, done } = engine.asked.pop()!;
    assert.equal(options.handshakeTimeoutMs, timeoutMs);
    done.reject(nobody());
  }
  await connecting;
  assert.deepEqual(engine.asked, []);
  await uplink.close();
});

Deno.test("a socket that never answers ends in words for both handshakes", async () => {
  const silent = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  const { port } = silent.addr as Deno.NetAddr;
  const heard = Array.fromAsync(silent, ([bytes]) => bytes.length);
  await using folder = await tempFolder();
  await using state = await ClientState.open({ folder: folder.path });
  const limits: (number | undefined)[] = [];
  const hasty = (options: ConnectOptions) => {
    limits.push(options.handshakeTimeoutMs);
    return connect({ ...options, handshakeTimeoutMs: 20 });
  };
  const uplink = new Uplink({
    ...{ state, clock: systemClock, choice: undefined, accessToken: undefined, connect: hasty },
    server: { hostname: "127.0.0.1", port },
  });
  await assert.rejects(uplink.freshRetrying(), /Nobody answers at 127\.0\.0\.1:\d+ within 20 ms/);
  assert.deepEqual(limits, [5_000, 10_000]);
  await uplink.close();
  silent.close();
  await heard;
});
