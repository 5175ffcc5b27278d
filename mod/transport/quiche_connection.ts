/** Connections of quiche behind the interface of transport.ts: streams, keep-alives, deadlines, how it ended. */
import type { NetAddress } from "../base/address.ts";
import { utf8, utf8Text } from "../base/bytes.ts";
import { AsyncQueue } from "./async_queue.ts";
import { unmapIpv4 } from "./host_names.ts";
import { alertText, certificateAlert, type QuicheFailure } from "./quiche_alerts.ts";
import type { QuicheEndpoint } from "./quiche_endpoint.ts";
import type { NativeConnection } from "./quiche_native.ts";
import { QuicheStream, type StreamOwner } from "./quiche_stream.ts";
import type { CloseReason, Connection, Stream } from "./transport.ts";

const REASON_CHARS_MAX = 200;
/** Holds a ServerHello, and never a whole answer with a certificate. */
const HELLO_PACKET_BYTES = 300;
const NOTHING = new Uint8Array(0);

/** One connection. */
export class QuicheConnection implements Connection, StreamOwner {
  readonly native: NativeConnection;
  readonly closed: Promise<CloseReason>;
  /** Resolves when TLS is done here; a client's is before the server has judged its certificate. Or when it ended. */
  readonly established: Promise<void>;
  readonly key: string;
  remote: { host: string; port: number };
  ended = false;
  /** When it wants to be looked at again, in `performance.now()`. */
  deadline = Infinity;
  readonly #endpoint: QuicheEndpoint;
  readonly #isServer: boolean;
  readonly #keepAliveMs: number;
  readonly #streams = new Map<number, QuicheStream>();
  readonly #incoming = new AsyncQueue<QuicheStream>();
  /** Ids of the peer's streams that have ended, down to the first that has not. */
  readonly #finished = new Set<number>();
  #firstUnfinished: number;
  #nextId: number;
  #openWaiters: (() => void)[] = [];
  #heardAt = performance.now();
  #isUp = false;
  #up = () => {};
  #end!: (reason: CloseReason) => void;
  /** quiche's words for the end; known from the end on. */
  failure: QuicheFailure | undefined;

  constructor(
    endpoint: QuicheEndpoint,
    native: NativeConnection,
    it: { key: string; remote: { host: string; port: number }; isServer: boolean; idleTimeoutMs: number },
  ) {
    this.#endpoint = endpoint;
    this.native = native;
    this.key = it.key;
    this.remote = it.remote;
    this.#isServer = it.isServer;
    this.#keepAliveMs = Math.max(1, it.idleTimeoutMs / 3);
    this.#nextId = it.isServer ? 1 : 0;
    this.#firstUnfinished = it.isServer ? 0 : 1;
    this.closed = new Promise((resolve) => this.#end = resolve);
    this.established = new Promise((resolve) => this.#up = resolve);
  }

  get remoteAddress(): NetAddress {
    return { hostname: unmapIpv4(this.remote.host), port: this.remote.port };
  }

  get peerChainDer(): readonly Uint8Array[] | null {
    return this.native.peerCertChain();
  }

  /** Is TLS done here? */
  get isUp(): boolean {
    return this.#isUp;
  }

  async openStream(): Promise<Stream> {
    while (!this.ended && this.native.peerStreamsLeftBidi() <= 0) {
      await new Promise<void>((resolve) => this.#openWaiters.push(resolve));
    }
    if (this.ended) throw new Error("Cannot open a stream as the connection is gone");
    const stream = new QuicheStream(this, this.#nextId);
    this.#nextId += 4;
    this.#streams.set(stream.id, stream);
    this.native.streamSend(stream.id, NOTHING, false); // quiche counts it from now on
    return stream;
  }

  incomingStreams(): AsyncIterable<Stream> {
    return this.#incoming;
  }

  close(code: number, reason: string): void {
    this.#close({ code, reason, isApp: true });
  }

  /** Ends it with a code of QUIC itself, before it is up. */
  refuse(code: number): void {
    // quiche closes under the keys of the handshake, which the client has only after ServerHello; but the whole
    // answer would let the client believe that it is connected. So: one small packet first.
    const buffer = this.#endpoint.takeBuffer();
    try {
      const sent = this.ended ? null : this.native.send(buffer.subarray(0, HELLO_PACKET_BYTES));
      if (sent) this.#endpoint.send(buffer, sent[0], sent[1].to);
    } catch {
      // quiche has kept the error; the close below says it.
    }
    this.#close({ code, reason: "", isApp: false });
  }

  #close({ code, reason, isApp }: { code: number; reason: string; isApp: boolean }): void {
    if (this.ended) return;
    try {
      // A client's last words of the handshake come first: without them the server cannot read the close.
      if (isApp) this.#sendAll();
      this.native.close(isApp, code, utf8(reason.slice(0, REASON_CHARS_MAX)));
      this.#sendAll();
    } catch {
      // Already ending.
    }
    this.#finish({ code, reason, by: "local" });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close(0, "");
    await this.closed;
    await this.#endpoint.sent();
  }

  touch(): void {
    if (!this.ended) this.#endpoint.schedule(this);
  }

  finished(id: number): void {
    if (!this.#streams.delete(id) || (id & 1) === (this.#isServer ? 1 : 0)) return;
    this.#finished.add(id);
    while (this.#finished.delete(this.#firstUnfinished)) this.#firstUnfinished += 4;
  }

  /** A packet came. quiche itself drops what is not genuine. */
  receive(packet: Uint8Array, from: { host: string; port: number }): void {
    if (this.ended) return;
    try {
      this.native.recv(packet, { from, to: this.#endpoint.local });
      this.#heardAt = performance.now();
    } catch {
      // Not genuine, or the end: quiche keeps the error, and flush() looks.
    }
    if (!this.#isUp && this.native.isEstablished()) {
      this.#isUp = true;
      this.#up();
    }
    this.touch();
  }

  /** Its deadline has passed. */
  expire(now: number): void {
    const timeout = this.native.timeout();
    if (timeout !== null && timeout <= 1) this.native.onTimeout();
    if (this.#isUp && now >= this.#heardAt + this.#keepAliveMs && !this.native.isClosed()) {
      this.#heardAt = now;
      this.native.sendAckEliciting();
    }
    this.touch();
  }

  /** Wakes who waits, sends what is to be sent, notices the end. */
  flush(): void {
    if (this.ended) return;
    if (this.#isUp) this.#wakeStreams();
    this.#sendAll();
    if (this.native.isDraining() || this.native.isClosed()) return this.#finish(this.#reason());
    const now = performance.now();
    const timeout = this.native.timeout();
    this.deadline = Math.min(
      timeout === null ? Infinity : now + timeout,
      this.#isUp ? this.#heardAt + this.#keepAliveMs : Infinity,
    );
    this.#endpoint.arm(this.deadline);
  }

  #wakeStreams(): void {
    for (const id of this.native.readable()) {
      if (this.#streams.has(id) || (id & 1) === (this.#isServer ? 1 : 0)) continue;
      if (id < this.#firstUnfinished || this.#finished.has(id)) continue;
      const stream = new QuicheStream(this, id);
      this.#streams.set(id, stream);
      this.#incoming.push(stream);
    }
    for (const stream of this.#streams.values()) stream.wake();
    if (this.#openWaiters.length > 0 && this.native.peerStreamsLeftBidi() > 0) this.#wakeOpeners();
  }

  #wakeOpeners(): void {
    for (const wake of this.#openWaiters.splice(0)) wake();
  }

  #sendAll(): void {
    while (true) {
      const buffer = this.#endpoint.takeBuffer();
      let sent: ReturnType<NativeConnection["send"]>;
      try {
        sent = this.native.send(buffer);
      } catch {
        sent = null; // quiche has kept the error
      }
      if (!sent) return this.#endpoint.giveBuffer(buffer);
      this.#endpoint.send(buffer, sent[0], sent[1].to);
    }
  }

  #reason(): CloseReason {
    if (this.native.isTimedOut()) return { code: 0, reason: "timed out", by: "timeout" };
    const peer = this.native.peerError();
    const error = peer ?? this.native.localError();
    if (!error) return { code: 0, reason: "the connection is gone", by: "transport" };
    this.failure = { code: error.errorCode, isApp: error.isApp, byPeer: peer !== null };
    const alert = certificateAlert(this.failure);
    const reason = alert === null
      ? utf8Text(Uint8Array.from(error.reason)) // at most a packet
      : `${peer ? "our" : "the peer's"} certificate is refused: ${alertText(alert)}`;
    return { code: error.errorCode, reason, by: peer?.isApp ? "peer" : "transport" };
  }

  #finish(reason: CloseReason): void {
    this.ended = true;
    this.#endpoint.forget(this);
    this.#incoming.end();
    for (const stream of this.#streams.values()) stream.wake();
    this.#streams.clear();
    this.#wakeOpeners();
    this.#end(reason);
    this.#up();
  }
}
