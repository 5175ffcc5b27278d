/**
 * What the runtime does by chance or on other threads, made to follow a seed while it is installed: random bytes
 * come from a generator, WebCrypto answers at once, and OPAQUE's workers answer in this thread. So a simulation
 * depends on nothing but its seed and the code. The algorithms stay the same, by node:crypto.
 */
import { Buffer } from "node:buffer";
import { createHash, createHmac, createPrivateKey, createPublicKey, sign, verify } from "node:crypto";
import * as opaque from "@serenity-kit/opaque";
import type { OpaqueJob } from "../../mod/auth/opaque_job.ts";
import { answer } from "../../mod/auth/opaque_ristretto255.ts";
import { type Bytes, copy } from "../../mod/base/bytes.ts";
import { randomId } from "../../mod/base/ids.ts";
import { prng } from "../support/prng.ts";

await opaque.ready;

/** Before the 32 bytes of an Ed25519 key (RFC 8410 §7, §4). */
const PKCS8_HEAD = Buffer.from("302e020100300506032b657004220420", "hex");
const SPKI_HEAD = Buffer.from("302a300506032b6570032100", "hex");

/** An Ed25519 key pair whose private key is `seed` (32 bytes). */
export class SeededKeyPair {
  readonly publicKey: Bytes;
  readonly #privateKey: ReturnType<typeof createPrivateKey>;

  constructor(seed: Uint8Array) {
    this.#privateKey = createPrivateKey({
      key: Buffer.concat([PKCS8_HEAD, seed]),
      format: "der",
      type: "pkcs8",
    });
    const spki = createPublicKey(this.#privateKey as never).export({ format: "der", type: "spki" });
    this.publicKey = copy(spki.subarray(SPKI_HEAD.length));
  }

  sign(content: Uint8Array): Bytes {
    return copy(sign(null, content, this.#privateKey));
  }
}

/** More ids than mod/base/ids.ts makes at once. */
const IDS_OF_A_POOL = 1024;

/** A key as the functions below pass it on in place of a CryptoKey. */
interface PlainKey {
  readonly raw: Uint8Array;
}

/** The parts of WebCrypto that the server uses. */
const SUBTLE = {
  async importKey(format: string, raw: Uint8Array): Promise<PlainKey> {
    if (format !== "raw") throw new TypeError(`A simulation imports raw keys only: ${format}`);
    return { raw: copy(raw) };
  },
  async sign(algorithm: string | { name: string }, key: PlainKey, content: Uint8Array): Promise<ArrayBuffer> {
    if (nameOf(algorithm) !== "HMAC") throw new TypeError(`A simulation signs with HMAC only`);
    return copy(createHmac("sha256", key.raw).update(content).digest()).buffer;
  },
  async verify(_algorithm: string, key: PlainKey, signature: Uint8Array, content: Uint8Array) {
    const spki = createPublicKey({ key: Buffer.concat([SPKI_HEAD, key.raw]), format: "der", type: "spki" });
    return verify(null, content, spki, signature);
  },
  async digest(algorithm: string | { name: string }, content: Uint8Array): Promise<ArrayBuffer> {
    const name = nameOf(algorithm).toLowerCase().replace("-", "");
    return copy(createHash(name).update(new Uint8Array(content)).digest()).buffer;
  },
};

function nameOf(algorithm: string | { name: string }): string {
  return typeof algorithm === "string" ? algorithm : algorithm.name;
}

/** A worker of OPAQUE without a thread: it answers in the next microtask. */
class InlineWorker {
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onerror: unknown = null;
  onmessageerror: unknown = null;
  #ended = false;

  constructor() {
    queueMicrotask(() => this.#post("ready"));
  }

  postMessage(job: OpaqueJob): void {
    queueMicrotask(() => this.#post(answer(job)));
  }

  terminate(): void {
    this.#ended = true;
  }

  #post(data: unknown): void {
    if (!this.#ended) this.onmessage?.({ data });
  }
}

/** `using _runtime = new SeededRuntime(seed)`: one at a time. */
export class SeededRuntime implements Disposable {
  readonly #undo: (() => void)[] = [];
  readonly #next: () => number;
  /** Times that random bytes were asked for. */
  #drawn = 0;

  constructor(seed: number) {
    this.#next = prng(seed);
    this.#replace(globalThis, "Worker", InlineWorker);
    this.#replace(crypto, "getRandomValues", (bytes: Uint8Array) => this.#fill(bytes));
    for (const [name, does] of Object.entries(SUBTLE)) this.#replace(crypto.subtle, name, does);
    this.#emptyIdPool();
  }

  [Symbol.dispose](): void {
    for (const undo of this.#undo.reverse()) undo();
  }

  /** Ids are cut from a pool of random bytes: what it holds from before is used up. */
  #emptyIdPool(): void {
    const drawnBefore = this.#drawn;
    for (let count = 0; count < IDS_OF_A_POOL && this.#drawn === drawnBefore; count++) randomId();
  }

  #fill<View extends ArrayBufferView>(view: View): View {
    const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
    for (let at = 0; at < bytes.length; at += 4) {
      const word = Math.floor(this.#next() * 2 ** 32);
      for (let part = at; part < Math.min(at + 4, bytes.length); part++) {
        bytes[part] = word >>> (8 * (part - at));
      }
    }
    this.#drawn++;
    return view;
  }

  #replace(target: object, name: string, value: unknown): void {
    const own = Object.getOwnPropertyDescriptor(target, name);
    Object.defineProperty(target, name, { value, configurable: true, writable: true });
    this.#undo.push(() => {
      if (own) Object.defineProperty(target, name, own);
      else Reflect.deleteProperty(target, name);
    });
  }
}
