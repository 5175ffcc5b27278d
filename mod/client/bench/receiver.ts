/**
 * The other side of a message: a device that is subscribed, or waits with FetchWait, and tells of each message as it
 * comes. It acknowledges what has come a few times a second, as acknowledging each message by itself would make three
 * requests of two.
 */
import { create, toBinary } from "@bufbuild/protobuf";
import { errorCodeOf } from "../../base/errors.ts";
import { CODE_OK, encodeFrame } from "../../protocol/frame.ts";
import { METHODS } from "../../protocol/methods.ts";
import { SubscribeRequestSchema } from "../../protocol/qpq_pb.ts";
import { type ClientConnection, ConnectionLostError } from "../connection.ts";
import { EntryScanner } from "./entry_scanner.ts";
import { FrameScanner } from "./frame_scanner.ts";

/** Payload that may be pushed before an acknowledgement. */
const CREDIT_BYTES = 16 << 20;
const ACK_MS = 100;
const WAIT_MS = 30_000;

/** Told of each message; the payload is a view. */
export type OnMessage = (payload: Uint8Array) => void;

/** One receiving device. */
export class Receiver {
  readonly #connection: ClientConnection;
  readonly #onMessage: OnMessage;
  readonly #onTurn: () => void;
  #seen = 0;
  #acked = 0;
  #stopped = false;
  #timer: ReturnType<typeof setInterval> | undefined;

  /** `onTurn` is called when there is no more in what just came. */
  constructor(connection: ClientConnection, options: { onMessage: OnMessage; onTurn: () => void }) {
    this.#connection = connection;
    this.#onMessage = options.onMessage;
    this.#onTurn = options.onTurn;
  }

  /** Begins to receive; resolves when messages will come. `failed` is called when that ends before {@link stop}. */
  async start(how: "subscribe" | "fetchWait", failed: (error: unknown) => void): Promise<void> {
    const fail = (error: unknown) => this.#stopped || failed(error);
    this.#timer = setInterval(() => this.#acknowledge().catch(fail), ACK_MS);
    if (how === "subscribe") await this.#subscribe(fail);
    else this.#wait().catch(fail);
  }

  /** Acknowledges the rest. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#timer);
    await this.#acknowledge();
  }

  async #acknowledge(): Promise<void> {
    if (this.#acked === this.#seen) return;
    this.#acked = this.#seen;
    await this.#connection.call("ack", { through: BigInt(this.#seen) });
  }

  async #subscribe(fail: (error: unknown) => void): Promise<void> {
    const stream = await this.#connection.openStream();
    const request = create(SubscribeRequestSchema, { after: 0n, creditBytes: CREDIT_BYTES });
    const { number } = METHODS.subscribe;
    await stream.write(encodeFrame(1, number, toBinary(SubscribeRequestSchema, request)));
    const subscribed = Promise.withResolvers<void>();
    const entries = new EntryScanner((_seq, payload) => this.#onMessage(payload));
    const frames = new FrameScanner((_id, code, body) => {
      if (code !== CODE_OK) throw new Error(`A subscription ended: ${errorCodeOf(code) ?? code}`);
      this.#seen = entries.scan(body) || this.#seen;
      subscribed.resolve();
    });
    const read = async () => {
      for (let chunk = await stream.read(); chunk; chunk = await stream.read()) {
        frames.push(chunk);
        this.#onTurn();
      }
      throw new ConnectionLostError(await this.#connection.closed);
    };
    read().catch((error) => {
      subscribed.reject(error);
      fail(error);
    });
    await subscribed.promise;
  }

  async #wait(): Promise<void> {
    while (!this.#stopped) {
      const fetch = { after: BigInt(this.#seen) };
      const { entries } = await this.#connection.call("fetchWait", { fetch, timeoutMs: WAIT_MS }, {
        timeoutMs: 2 * WAIT_MS,
      });
      for (const { payload } of entries) this.#onMessage(payload);
      const last = entries.at(-1);
      if (last) this.#seen = Number(last.seq);
      this.#onTurn();
    }
  }
}
