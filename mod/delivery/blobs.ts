/**
 * Blobs: bytes under their SHA-256, put by accounts within a quota and read by any login that knows the hash. The
 * references are in the store, the bytes in files, and each blob's file and references change together under its
 * lock. A file without a reference may be left by a crash and is removed at the next start; a reference without
 * its file cannot be, since the file is durable first.
 */
import type { Clock } from "../base/clock.ts";
import { QpqError } from "../base/errors.ts";
import type { AccountId, BlobHash } from "../base/ids.ts";
import { shortId } from "../base/ids.ts";
import { logger } from "../base/log.ts";
import type { BlobFiles, BlobWriter } from "../store/blob_files.ts";
import type { BlobStore } from "../store/store.ts";

const log = logger("delivery");

/** A blob outlives the messages that speak of it. */
const BEYOND_TTL_MS = 7 * 86_400_000;
/** Hashes that the store is asked about at once. */
const ORPHANS_STEP = 500;
const RETRY_AFTER_MS = 1_000;
/** Part of the uploads at once that one account may have: whoever uploads slowly keeps nobody else out. */
const UPLOADS_SHARE = 1 / 4;

/** Bounds of blobs. */
export interface BlobLimits {
  readonly blobBytesMax: number;
  /** Bytes that one account may refer to. */
  readonly blobQuotaBytes: number;
  /** Life of messages, when the client names none, and at most. */
  readonly ttlDefaultMs: number;
  readonly ttlMaxMs: number;
  /** Uploads at once, all accounts together. */
  readonly uploadsMax: number;
  /** How much longer than the messages that speak of it a blob lives; a week by default. */
  readonly beyondTtlMs?: number;
}

/** What Blobs works with. */
export interface BlobDeps {
  readonly store: BlobStore;
  readonly files: BlobFiles;
  readonly clock: Clock;
  readonly limits: BlobLimits;
  /** Told that no place was left for an upload: of all, or of those that one account may have. */
  readonly onNoPlace?: (limit: "blobUploads" | "blobUploadsAccount") => void;
}

/** A blob to be put. */
export interface NewBlob {
  readonly owner: AccountId;
  readonly hash: BlobHash;
  readonly bytes: number;
  /** Life of the message that speaks of it; 0: the default. */
  readonly ttlMs: number;
  readonly body: AsyncIterable<Uint8Array>;
}

/** The blobs of this server. */
export class Blobs {
  readonly #store: BlobStore;
  readonly #files: BlobFiles;
  readonly #clock: Clock;
  readonly #onNoPlace: NonNullable<BlobDeps["onNoPlace"]>;
  #limits: BlobLimits;
  #uploads = 0;
  /** Each account's uploads under way; their announced bytes count against its quota already. */
  readonly #uploading = new Map<AccountId, { count: number; bytes: number }>();

  constructor(deps: BlobDeps) {
    this.#store = deps.store;
    this.#files = deps.files;
    this.#clock = deps.clock;
    this.#limits = deps.limits;
    this.#onNoPlace = deps.onNoPlace ?? (() => {});
  }

  /** Uploads under way. */
  get uploadCount(): number {
    return this.#uploads;
  }

  /** Other bounds from now on. */
  set limits(limits: BlobLimits) {
    this.#limits = limits;
  }

  /**
   * Stores a blob, or another owner's reference to it, or extends one's own. Size and quota are checked before a
   * byte of the body is read; the body is read even when the blob is known, since only bytes prove possession.
   * QpqError blobTooLarge, blobQuotaExceeded, blobHashMismatch, rateLimited, overloaded, storeFull; errors of the
   * body pass on.
   */
  async put(blob: NewBlob): Promise<{ expiresAt: number }> {
    const { owner, bytes } = blob;
    const { blobBytesMax } = this.#limits;
    if (bytes > blobBytesMax) {
      throw new QpqError(
        "blobTooLarge",
        `Cannot put a blob of ${bytes} bytes as the most is ${blobBytesMax}`,
      );
    }
    const uploading = this.#beginUpload(owner, bytes);
    try {
      await this.#refer(blob, { bytes: uploading.bytes, dryRun: true });
      return await this.#receive(blob);
    } finally {
      this.#uploads--;
      uploading.bytes -= bytes;
      if (--uploading.count === 0) this.#uploading.delete(owner);
    }
  }

  /** Takes a place for an upload; returns all of the owner's that are under way. */
  #beginUpload(owner: AccountId, bytes: number): { count: number; bytes: number } {
    const { uploadsMax } = this.#limits;
    const retry = { retryAfterMs: RETRY_AFTER_MS };
    if (this.#uploads >= uploadsMax) {
      this.#onNoPlace("blobUploads");
      throw new QpqError("overloaded", `Cannot begin an upload as ${this.#uploads} are under way`, retry);
    }
    const uploading = this.#uploading.get(owner) ?? { count: 0, bytes: 0 };
    if (uploading.count >= Math.ceil(uploadsMax * UPLOADS_SHARE)) {
      this.#onNoPlace("blobUploadsAccount");
      const message = `Cannot begin an upload as the account has ${uploading.count} under way`;
      throw new QpqError("rateLimited", message, retry);
    }
    this.#uploads++;
    uploading.count++;
    uploading.bytes += bytes;
    this.#uploading.set(owner, uploading);
    return uploading;
  }

  async #receive(blob: NewBlob): Promise<{ expiresAt: number }> {
    const writer = await this.#files.begin();
    try {
      let received = 0;
      for await (const chunk of blob.body) {
        received += chunk.length;
        if (received > blob.bytes) {
          throw new QpqError("blobHashMismatch", `More than the announced ${blob.bytes} bytes came`);
        }
        await writer.write(chunk);
      }
      await writer.finish({ hash: blob.hash, bytes: blob.bytes });
      return await this.#files.exclusive(blob.hash, () => this.#publish(blob, writer));
    } finally {
      await writer.abort();
    }
  }

  /** File first, reference second; a refused reference takes back a file that nobody else refers to. */
  async #publish(blob: NewBlob, writer: BlobWriter): Promise<{ expiresAt: number }> {
    await writer.publish(blob.hash);
    try {
      return await this.#refer(blob, { bytes: blob.bytes, dryRun: false });
    } catch (error) {
      // What cannot be removed now is removed at the next start.
      await this.#deleteUnreferenced(blob.hash).catch(() => false);
      throw error;
    }
  }

  async #refer(
    { owner, hash, ttlMs }: NewBlob,
    { bytes, dryRun }: { bytes: number; dryRun: boolean },
  ): Promise<{ expiresAt: number }> {
    const { ttlDefaultMs, ttlMaxMs, blobQuotaBytes, beyondTtlMs = BEYOND_TTL_MS } = this.#limits;
    const now = this.#clock.now();
    const expiresAt = now + Math.min(ttlMs || ttlDefaultMs, ttlMaxMs) + beyondTtlMs;
    const reference = { hash, owner, bytes, expiresAt, quotaBytes: blobQuotaBytes, dryRun, now };
    const { status } = await this.#store.putBlobReference(reference);
    if (status === "ok") return { expiresAt };
    throw new QpqError(
      "blobQuotaExceeded",
      `Cannot put ${bytes} bytes for account ${shortId(owner)} as its quota is ${blobQuotaBytes}`,
    );
  }

  /**
   * A blob's size, and `length` bytes of it from `offset` on (0: to the end). QpqError blobNotFound, rangeInvalid.
   * A blob deleted while it is read is read to its end.
   */
  async get(
    range: { hash: BlobHash; offset: number; length: number },
  ): Promise<{ size: number; length: number; body: AsyncIterable<Uint8Array> }> {
    const { hash, offset } = range;
    // Together, so that a delete between the two does not look like damage.
    const { blob, sound } = await this.#files.exclusive(hash, async () => {
      const blob = await this.#store.findBlob(hash, this.#clock.now());
      return { blob, sound: blob !== null && await this.#files.isSound(hash) };
    });
    if (!blob) throw new QpqError("blobNotFound", `Cannot get blob ${shortId(hash)} as nobody refers to it`);
    const length = range.length || Math.max(0, blob.bytes - offset);
    if (offset + length > blob.bytes) {
      throw new QpqError(
        "rangeInvalid",
        `Cannot get ${length} bytes from ${offset} of a blob of ${blob.bytes}`,
      );
    }
    if (!sound) {
      log.error("the file of blob {hash} is missing or damaged", { hash: shortId(hash) });
      throw new QpqError(
        "blobNotFound",
        `Cannot get blob ${shortId(hash)} as its file is missing or damaged`,
      );
    }
    return { size: blob.bytes, length, body: this.#files.read(hash, offset, length) };
  }

  /** Removes the owner's reference, and the bytes with the last one. QpqError notFound when it is not the owner's. */
  async delete({ owner, hash }: { owner: AccountId; hash: BlobHash }): Promise<void> {
    await this.#files.exclusive(hash, async () => {
      const deleted = await this.#store.deleteBlobReference(hash, owner);
      if (!deleted) throw new QpqError("notFound", `Account ${shortId(owner)} has no blob ${shortId(hash)}`);
      if (deleted.orphaned) await this.#files.delete(hash);
    });
  }

  /** Removes at most `limit` expired references and the bytes that nobody refers to any more; returns how many blobs. */
  async expire(limit: number): Promise<number> {
    const orphans = await this.#store.expireBlobs(this.#clock.now(), limit);
    await this.remove(orphans);
    return orphans.length;
  }

  /** Removes the bytes of these blobs unless somebody refers to them (again). Returns how many were removed. */
  async remove(hashes: readonly BlobHash[]): Promise<number> {
    let removed = 0;
    for (const hash of hashes) {
      if (await this.#files.exclusive(hash, () => this.#deleteUnreferenced(hash))) removed++;
    }
    return removed;
  }

  /** See {@link BlobFiles.keepDeleted}. */
  keepDeleted(): () => Promise<void> {
    return this.#files.keepDeleted();
  }

  /** For the start: removes files that nothing refers to, as a crash may leave them. Returns how many. */
  async removeOrphans(): Promise<number> {
    let removed = 0;
    let step: BlobHash[] = [];
    const removeStep = async () => {
      removed += await this.remove(await this.#store.unreferencedBlobs(step));
      step = [];
    };
    for await (const hash of this.#files.list()) {
      if (step.push(hash) === ORPHANS_STEP) await removeStep();
    }
    await removeStep();
    if (removed > 0) log.info("removed {removed} blobs that nothing refers to", { removed });
    return removed;
  }

  /** Inside exclusive(). */
  async #deleteUnreferenced(hash: BlobHash): Promise<boolean> {
    const [unreferenced] = await this.#store.unreferencedBlobs([hash]);
    if (unreferenced === undefined) return false;
    await this.#files.delete(hash);
    return true;
  }
}
