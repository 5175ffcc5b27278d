/** The verbs of BlobStore inside the worker; see store.ts for what they promise. */
import { type AccountId, type BlobHash, idOf } from "../../base/ids.ts";
import { BLOB_CACHE_OWNER, type BlobStore } from "../store.ts";
import type { Connection, Prepared } from "./connection.ts";
import type { Ledger } from "./ledger.ts";

interface BlobRow {
  bytes: number;
  refs: number;
}

interface ReferenceRow {
  hash: Uint8Array;
  owner: number;
}

type Reference = Parameters<BlobStore["putBlobReference"]>[0];
type PutResult = Awaited<ReturnType<BlobStore["putBlobReference"]>>;

/** In the place of an account: rows of accounts are numbered from 1. */
const CACHE_OWNER_KEY = 0;

/** References to blobs. */
export class Blobs {
  readonly #ledger: Ledger;
  readonly #owner: Prepared<{ id: number }>;
  readonly #find: Prepared<BlobRow>;
  readonly #findUnexpired: Prepared<{ hash: Uint8Array }>;
  readonly #insert: Prepared<never>;
  readonly #setRefs: Prepared<never>;
  readonly #delete: Prepared<never>;
  readonly #findRef: Prepared<{ expires_at: number }>;
  readonly #putRef: Prepared<never>;
  readonly #deleteRef: Prepared<never>;
  readonly #refsOf: Prepared<ReferenceRow>;
  readonly #expired: Prepared<ReferenceRow>;
  readonly #ownerBytes: Prepared<{ bytes: number }>;
  readonly #putOwnerBytes: Prepared<never>;
  readonly #deleteOwner: Prepared<never>;

  constructor(connection: Connection, ledger: Ledger) {
    this.#ledger = ledger;
    const prepare = <Row = never>(sql: string) => connection.prepare<Row>(sql);
    this.#owner = prepare("SELECT id FROM accounts WHERE account_id = ? AND deleted_at IS NULL");
    this.#find = prepare("SELECT bytes, refs FROM blobs WHERE hash = ?");
    this.#findUnexpired = prepare("SELECT hash FROM blob_refs WHERE hash = ? AND expires_at > ? LIMIT 1");
    this.#insert = prepare("INSERT INTO blobs (hash, bytes, refs) VALUES (?, ?, 1)");
    this.#setRefs = prepare("UPDATE blobs SET refs = ? WHERE hash = ?");
    this.#delete = prepare("DELETE FROM blobs WHERE hash = ?");
    this.#findRef = prepare("SELECT expires_at FROM blob_refs WHERE hash = ? AND owner = ?");
    this.#putRef = prepare("REPLACE INTO blob_refs (hash, owner, expires_at) VALUES (?, ?, ?)");
    this.#deleteRef = prepare("DELETE FROM blob_refs WHERE hash = ? AND owner = ?");
    this.#refsOf = prepare("SELECT hash, owner FROM blob_refs WHERE owner = ?");
    this.#expired = prepare(
      "SELECT hash, owner FROM blob_refs WHERE expires_at <= ? ORDER BY expires_at LIMIT ?",
    );
    this.#ownerBytes = prepare("SELECT bytes FROM blob_owners WHERE owner = ?");
    this.#putOwnerBytes = prepare("REPLACE INTO blob_owners (owner, bytes) VALUES (?, ?)");
    this.#deleteOwner = prepare("DELETE FROM blob_owners WHERE owner = ?");
  }

  putBlobReference(reference: Reference): PutResult {
    const { bytes, expiresAt, quotaBytes, dryRun } = reference;
    const owner = this.#ownerKey(reference.owner);
    // A deleted account may hold nothing.
    if (owner === undefined) return { status: "quotaExceeded" };
    const hash = Uint8Array.fromHex(reference.hash);
    const blob = this.#find.get(hash);
    const held = this.#findRef.get(hash, owner);
    const ownerBytes = this.#ownerBytes.get(owner)?.bytes ?? 0;
    if (!held && ownerBytes + bytes > quotaBytes) return { status: "quotaExceeded" };
    const result = { status: "ok", known: blob !== undefined } as const;
    if (dryRun) return result;
    this.#putRef.run(hash, owner, Math.max(expiresAt, held?.expires_at ?? 0));
    if (held) return result;
    if (blob) this.#setRefs.run(blob.refs + 1, hash);
    else {
      this.#insert.run(hash, bytes);
      this.#count(1, bytes);
    }
    this.#putOwnerBytes.run(owner, ownerBytes + (blob?.bytes ?? bytes));
    return result;
  }

  #ownerKey(owner: AccountId): number | undefined {
    if (owner === BLOB_CACHE_OWNER) return CACHE_OWNER_KEY;
    return this.#owner.get(Uint8Array.fromHex(owner))?.id;
  }

  #count(blobs: number, bytes: number): void {
    const totals = this.#ledger.totals.change();
    totals.blobs += blobs;
    totals.blobBytes += bytes;
  }

  findBlob(hash: BlobHash, now: number): { bytes: number } | null {
    const key = Uint8Array.fromHex(hash);
    const blob = this.#findUnexpired.get(key, now) && this.#find.get(key);
    return blob ? { bytes: blob.bytes } : null;
  }

  deleteBlobReference(hash: BlobHash, owner: AccountId): { orphaned: boolean } | null {
    const key = Uint8Array.fromHex(hash);
    const ownerKey = this.#ownerKey(owner);
    if (ownerKey === undefined || !this.#findRef.get(key, ownerKey)) return null;
    return { orphaned: this.#release({ hash: key, owner: ownerKey }) };
  }

  /** Removes one reference; true when it was the blob's last. */
  #release({ hash, owner }: ReferenceRow): boolean {
    const blob = this.#find.get(hash)!;
    this.#deleteRef.run(hash, owner);
    const left = (this.#ownerBytes.get(owner)?.bytes ?? 0) - blob.bytes;
    if (left > 0) this.#putOwnerBytes.run(owner, left);
    else this.#deleteOwner.run(owner);
    if (blob.refs > 1) {
      this.#setRefs.run(blob.refs - 1, hash);
      return false;
    }
    this.#delete.run(hash);
    this.#count(-1, -blob.bytes);
    return true;
  }

  expireBlobs(now: number, limit: number): BlobHash[] {
    return this.#releaseAll(this.#expired.all(now, limit));
  }

  /** Removes all references of an account; returns the blobs left without one. */
  deleteAllOf(owner: number): BlobHash[] {
    return this.#releaseAll(this.#refsOf.all(owner));
  }

  #releaseAll(rows: readonly ReferenceRow[]): BlobHash[] {
    return rows.filter((row) => this.#release(row)).map((row) => idOf(row.hash));
  }

  unreferencedBlobs(hashes: readonly BlobHash[]): BlobHash[] {
    return hashes.filter((hash) => !this.#find.get(Uint8Array.fromHex(hash)));
  }
}
