/**
 * Blobs of other servers. One is fetched whole, once however many ask for it at the same time, verified against its
 * hash before it can be read, and kept for a while under a reserved owner, within a bound: the least recently read go
 * for new ones. Nothing is passed on that was not verified, so what does not fit is refused.
 */
import { unlessAborted } from "../base/abort.ts";
import type { Clock } from "../base/clock.ts";
import { QpqError } from "../base/errors.ts";
import { type BlobHash, shortId } from "../base/ids.ts";
import { logger } from "../base/log.ts";
import type { Blobs } from "../delivery/blobs.ts";
import { idBytes } from "../protocol/fields.ts";
import { BLOB_CACHE_OWNER } from "../store/store.ts";
import type { IncomingBlob, PeerBlob } from "./link.ts";

const log = logger("federation");

/** A peer that sends nothing for so long has ended the fetch. */
const STILL_MS = 30_000;
const RETRY_AFTER_MS = 5_000;
/** Fetches at once, all peers together, and of one. */
const FETCHES_MAX = 32;
const FETCHES_PER_PEER_MAX = 8;

/** What the cache works with. */
export interface BlobCacheDeps {
  /** This server's blobs, which may have it already. */
  readonly blobs: Blobs;
  /** The same store of blobs with the cache's bounds. */
  readonly cached: Blobs;
  readonly clock: Clock;
  readonly fetch: (domain: string, sha256: Uint8Array) => Promise<IncomingBlob>;
  /** Bounds of the cache, in bytes, and of a blob. */
  readonly limits: { readonly bytesMax: number; readonly blobBytesMax: number };
}

/** Which bytes of a blob. */
export interface BlobRange {
  readonly hash: BlobHash;
  readonly offset: number;
  readonly length: number;
}

/** The cache. */
export class BlobCache implements Disposable {
  readonly #deps: BlobCacheDeps;
  readonly #fetches = new Map<BlobHash, { domain: string; done: Promise<void> }>();
  /** Copies of this run, the least recently read first. */
  readonly #copies = new Set<BlobHash>();
  readonly #ended = new AbortController();

  constructor(deps: BlobCacheDeps) {
    this.#deps = deps;
  }

  /** The bytes, from here or from `domain`. QpqError as {@link Blobs.get}; `overloaded` when there is no room. */
  async get(domain: string, range: BlobRange): Promise<PeerBlob> {
    const here = await this.#have(range);
    if (here) return here;
    await this.#fetchOnce(domain, range.hash);
    return await this.#deps.blobs.get(range);
  }

  /** Ends what is being fetched. */
  [Symbol.dispose](): void {
    this.#ended.abort();
  }

  async #have(range: BlobRange): Promise<PeerBlob | null> {
    try {
      const found = await this.#deps.blobs.get(range);
      if (this.#copies.delete(range.hash)) this.#copies.add(range.hash);
      return found;
    } catch (error) {
      if (error instanceof QpqError && error.code === "blobNotFound") return null;
      throw error;
    }
  }

  /** Whoever asks while it is being fetched waits for that, from whichever peer: the bytes are the same. */
  async #fetchOnce(domain: string, hash: BlobHash): Promise<void> {
    const running = this.#fetches.get(hash);
    if (running?.domain === domain) return await running.done;
    // Another peer's failure says nothing about this one.
    if (running) return await running.done.catch(() => this.#fetchOnce(domain, hash));
    const ofPeer = [...this.#fetches.values()].filter((fetch) => fetch.domain === domain).length;
    if (this.#fetches.size >= FETCHES_MAX || ofPeer >= FETCHES_PER_PEER_MAX) {
      throw overloaded(`${this.#fetches.size} blobs are being fetched`);
    }
    const done = this.#fetch(domain, hash).finally(() => this.#fetches.delete(hash));
    this.#fetches.set(hash, { domain, done });
    await done;
  }

  async #fetch(domain: string, hash: BlobHash): Promise<void> {
    const { cached, limits } = this.#deps;
    const incoming = await this.#deps.fetch(domain, idBytes(hash));
    try {
      if (incoming.size > limits.blobBytesMax) {
        throw new QpqError("blobTooLarge", `The blob of ${domain} has ${incoming.size} bytes`);
      }
      if (incoming.size > limits.bytesMax) throw overloaded(`The cache holds ${limits.bytesMax} bytes`);
      const blob = { owner: BLOB_CACHE_OWNER, hash, bytes: incoming.size, ttlMs: 0 };
      while (true) {
        try {
          await cached.put({ ...blob, body: this.#inTime(incoming) });
          break;
        } catch (error) {
          if (!(error instanceof QpqError)) throw error;
          // Refused before a byte of the body was read.
          if (error.code === "blobQuotaExceeded" && await this.#dropOldest()) continue;
          throw asSeenByClients(error);
        }
      }
      this.#copies.add(hash);
      log.debug("copied blob {hash} of {peer}", { hash: shortId(hash), peer: domain, bytes: incoming.size });
    } finally {
      incoming.abort();
    }
  }

  /** False when there is nothing left to drop. */
  async #dropOldest(): Promise<boolean> {
    const [oldest] = this.#copies;
    if (oldest === undefined) return false;
    this.#copies.delete(oldest);
    try {
      await this.#deps.cached.delete({ owner: BLOB_CACHE_OWNER, hash: oldest });
    } catch (error) {
      if (!(error instanceof QpqError && error.code === "notFound")) throw error; // it had expired
    }
    return true;
  }

  async *#inTime({ body, size }: IncomingBlob): AsyncGenerator<Uint8Array> {
    let received = 0;
    const chunks = body[Symbol.asyncIterator]();
    while (received < size) {
      const late = new AbortController();
      const cancel = this.#deps.clock.after(STILL_MS, () => late.abort(cutOff("nothing came for a while")));
      try {
        const signal = AbortSignal.any([late.signal, this.#ended.signal]);
        const { value, done } = await unlessAborted(chunks.next(), signal);
        if (done) throw cutOff(`the stream ended ${size - received} bytes early`);
        received += value.length;
        yield value;
      } finally {
        cancel();
      }
    }
  }
}

function cutOff(reason: string): QpqError {
  return new QpqError("peerUnavailable", `The blob did not come whole: ${reason}`, {
    retryAfterMs: RETRY_AFTER_MS,
  });
}

function overloaded(reason: string): QpqError {
  return new QpqError("overloaded", `Cannot copy a blob: ${reason}`, { retryAfterMs: RETRY_AFTER_MS });
}

/** The cache's bounds are not the client's: it is to come again. */
function asSeenByClients(error: QpqError): QpqError {
  const own = error.code === "blobQuotaExceeded" || error.code === "rateLimited";
  return own ? overloaded(error.message) : error;
}
