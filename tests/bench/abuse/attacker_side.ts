/** What every attack works with: connections to the target, what was done, and when to stop. */
import { fromBinary } from "@bufbuild/protobuf";
import { fromHex } from "../../../mod/base/bytes.ts";
import { QpqError } from "../../../mod/base/errors.ts";
import type { ClientConnection } from "../../../mod/client/connection.ts";
import { connect } from "../../../mod/transport/deno_quic.ts";
import type { Connection } from "../../../mod/transport/transport.ts";
import { CODE_OK, type Frame } from "../../../mod/protocol/frame.ts";
import { ErrorResponseSchema } from "../../../mod/protocol/qpq_pb.ts";
import { Random } from "../../fuzz/random.ts";
import { type ResumedDevice, resumeDevice, type Target } from "./target.ts";

const CLOSE_FRAMES_MS = 200;

/** What an attacker did, and got. */
export interface Tally {
  /** Connections that were opened, or tried. */
  readonly connections: number;
  /** Requests or frames that were sent. */
  readonly requests: number;
  /** Of them refused, as far as refusals are answers to requests. */
  readonly refused: number;
  /** Of the refused those that said when to come back. */
  readonly withRetryAfter: number;
}

/** One attacker: its counters and its end. */
export class Attacker {
  readonly random: Random;
  readonly stopped: Promise<void>;
  connections = 0;
  requests = 0;
  refused = 0;
  withRetryAfter = 0;
  over = false;
  readonly #open = new Set<Connection>();
  #onStop = () => {};

  constructor(readonly target: Target, readonly options: { frames: number; seed: number }) {
    this.random = new Random(options.seed);
    this.stopped = new Promise((resolve) => this.#onStop = resolve);
  }

  /** Stop, or everything that was wanted is sent. */
  get done(): boolean {
    return this.over || this.requests >= this.options.frames;
  }

  stop(): void {
    this.over = true;
    this.#onStop();
  }

  tally(): Tally {
    const { connections, requests, refused, withRetryAfter } = this;
    return { connections, requests, refused, withRetryAfter };
  }

  /** A connection that has said nothing yet; counted even if there is none. */
  async connect(options: { port?: number; handshakeTimeoutMs?: number } = {}): Promise<Connection> {
    this.connections++;
    const { hostname, port, fingerprint } = this.target;
    return this.#keep(
      await connect({
        hostname,
        port,
        identity: { kind: "pinned", leafSha256: [fromHex(fingerprint)] },
        idleTimeoutMs: 30_000,
        ...options,
      }),
    );
  }

  /** One of the target's devices, on a connection of its own. */
  async resume(index: number): Promise<ResumedDevice> {
    this.connections++;
    const device = await resumeDevice(this.target, index);
    this.#keep(device.transport);
    return device;
  }

  /** Hangs up everywhere. Resolves when that has left. */
  async hangUp(): Promise<void> {
    for (const connection of this.#open) connection.close(0, "");
    await new Promise((resolve) => setTimeout(resolve, CLOSE_FRAMES_MS));
  }

  #keep(connection: Connection): Connection {
    this.#open.add(connection);
    connection.closed.then(() => this.#open.delete(connection));
    return connection;
  }

  /** Sends a request and counts what becomes of it. */
  async ask(connection: ClientConnection, ...call: Parameters<ClientConnection["call"]>): Promise<unknown> {
    this.requests++;
    try {
      return await connection.call(...call);
    } catch (error) {
      this.refused++;
      if (error instanceof QpqError && (error.details.retryAfterMs ?? 0) > 0) this.withRetryAfter++;
      return null;
    }
  }

  /** Counts a reply that is an error. */
  answered(frame: Frame): void {
    if (frame.code === CODE_OK) return;
    this.refused++;
    if (fromBinary(ErrorResponseSchema, frame.body).retryAfterMs > 0) this.withRetryAfter++;
  }

  /** Does `work` again and again, in so many loops at once, until it is time to stop; what rejects is tried again. */
  async loops(count: number, work: (loop: number) => Promise<unknown>): Promise<void> {
    await Promise.all(Array.from({ length: count }, async (_, loop) => {
      while (!this.done) {
        // One that fails at once must leave the others a turn.
        await Promise.race([
          work(loop).catch(() => new Promise((resolve) => setTimeout(resolve))),
          this.stopped,
        ]);
      }
    }));
  }
}
