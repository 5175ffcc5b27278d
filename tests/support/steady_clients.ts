/**
 * A logged-in account that must not notice what operators do: one device with an open subscription, one with a parked
 * wait, and messages under way before, meanwhile and after.
 */
import assert from "node:assert/strict";
import { callControl, type JsonObject } from "../../mod/admin/control.ts";
import { utf8, utf8Text } from "../../mod/base/bytes.ts";
import type { FetchResponse, PushBatch } from "../../mod/protocol/qpq_pb.ts";
import { newAccount, newDevice, type Reachable, type TestClient } from "./test_client.ts";

/** Calls an operation of the server that runs on `dataDir`. */
export async function control(dataDir: string, name: string, input: JsonObject = {}): Promise<JsonObject> {
  return await callControl(dataDir, { name, input }) as JsonObject;
}

/** The clients. */
export class SteadyClients implements AsyncDisposable {
  readonly #sent: string[] = [];

  private constructor(
    readonly subscriber: TestClient,
    readonly waiter: TestClient,
    readonly pushes: AsyncGenerator<PushBatch>,
    readonly wait: Promise<FetchResponse>,
  ) {}

  /** Returns when the subscription is open and the wait is parked. */
  static async start(server: Reachable & { dataDir: string }, userName: string): Promise<SteadyClients> {
    const subscriber = await newAccount(server, userName);
    const waiter = await newDevice(server, userName);
    // The new device is told to the first one; that is no message of ours.
    const { cursor } = await subscriber.connection.call("fetch", {});
    const pushes = subscriber.connection.subscribe({ after: cursor!.nextSeq - 1n, creditBytes: 1 << 20 });
    await pushes.next();
    const wait = waiter.connection.call("fetchWait", { timeoutMs: 60_000 });
    while ((await control(server.dataDir, "status"))["waits"] !== 1) await waiter.connection.call("ping", {});
    return new SteadyClients(subscriber, waiter, pushes, wait);
  }

  /** Sends to the subscription on the connections that were there from the beginning. */
  async send(text: string): Promise<void> {
    this.#sent.push(text);
    await this.waiter.enqueue([this.subscriber.deviceId], { payload: utf8(text) });
  }

  /** Everything that was sent has come through the subscription, once and in order, and the wait is woken. */
  async lostNothing(): Promise<void> {
    const came: string[] = [];
    while (came.length < this.#sent.length) {
      const { value, done } = await this.pushes.next();
      assert.ok(!done, "the subscription is open");
      came.push(...value!.entries.map((entry: { payload: Uint8Array }) => utf8Text(entry.payload)));
    }
    assert.deepEqual(came, this.#sent);
    await this.subscriber.enqueue([this.waiter.deviceId], { payload: utf8("wake up") });
    assert.deepEqual((await this.wait).entries.map(({ payload }) => utf8Text(payload)), ["wake up"]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.subscriber[Symbol.asyncDispose]();
    await this.waiter[Symbol.asyncDispose]();
    this.wait.catch(() => {});
  }
}
