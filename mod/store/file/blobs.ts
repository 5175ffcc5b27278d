/** References to blobs in memory: table, indexes and verbs of {@link BlobStore}. */
import type { AccountId, BlobHash } from "../../base/ids.ts";
import { BLOB_CACHE_OWNER, type BlobStore } from "../store.ts";
import type { BlobRow } from "./rows.ts";
import type { State } from "./state.ts";
import { Table } from "./table.ts";

/** The table of this file. */
export function blobTables() {
  return {
    references: new Table<BlobRow>(50, {
      key: (row) => row.hash + row.owner,
      columns: { hash: "text", owner: "text", bytes: "number", expiresAt: "number" },
    }),
  };
}

/** References by blob and by owner, and what they add up to. */
export class BlobIndex {
  readonly #byHash = new Map<BlobHash, Map<AccountId, BlobRow>>();
  readonly #byOwner = new Map<AccountId, Map<BlobHash, BlobRow>>();
  readonly #ownerBytes = new Map<AccountId, number>();
  /** Bytes of all blobs, each once. */
  blobBytes = 0;

  constructor(tables: ReturnType<typeof blobTables>) {
    tables.references.onChange = (before, after) => {
      if (before) this.#remove(before);
      if (after) this.#add(after);
    };
  }

  /** Blobs with a reference. */
  get blobCount(): number {
    return this.#byHash.size;
  }

  /** Hashes of the blobs with a reference. */
  hashes(): IterableIterator<BlobHash> {
    return this.#byHash.keys();
  }

  referencesTo(hash: BlobHash): BlobRow[] {
    return [...this.#byHash.get(hash)?.values() ?? []];
  }

  referencesOf(owner: AccountId): BlobRow[] {
    return [...this.#byOwner.get(owner)?.values() ?? []];
  }

  /** Bytes that the owner references, expired references included. */
  bytesOf(owner: AccountId): number {
    return this.#ownerBytes.get(owner) ?? 0;
  }

  #add(row: BlobRow): void {
    const owners = this.#byHash.get(row.hash) ?? new Map<AccountId, BlobRow>();
    if (owners.size === 0) this.blobBytes += row.bytes;
    this.#byHash.set(row.hash, owners.set(row.owner, row));
    const hashes = this.#byOwner.get(row.owner) ?? new Map<BlobHash, BlobRow>();
    this.#byOwner.set(row.owner, hashes.set(row.hash, row));
    this.#ownerBytes.set(row.owner, this.bytesOf(row.owner) + row.bytes);
  }

  #remove(row: BlobRow): void {
    const owners = this.#byHash.get(row.hash);
    owners?.delete(row.owner);
    if (owners?.size === 0) {
      this.#byHash.delete(row.hash);
      this.blobBytes -= row.bytes;
    }
    const hashes = this.#byOwner.get(row.owner);
    hashes?.delete(row.hash);
    if (hashes?.size === 0) {
      this.#byOwner.delete(row.owner);
      this.#ownerBytes.delete(row.owner);
    } else this.#ownerBytes.set(row.owner, this.bytesOf(row.owner) - row.bytes);
  }
}

type PutReference = Parameters<BlobStore["putBlobReference"]>[0];

/** See {@link BlobStore.putBlobReference}. */
export function putBlobReference(
  state: State,
  reference: PutReference,
): Awaited<ReturnType<BlobStore["putBlobReference"]>> {
  const { hash, owner, now } = reference;
  const references = state.blobIndex.referencesTo(hash);
  const known = references.find((row) => row.expiresAt > now);
  const own = references.find((row) => row.owner === owner);
  const bytes = references[0]?.bytes ?? reference.bytes;
  // A deleted account may hold nothing.
  if (owner !== BLOB_CACHE_OWNER && !state.accounts.accounts.has(owner)) return { status: "quotaExceeded" };
  if (!fitsQuota(state, reference, bytes)) return { status: "quotaExceeded" };
  if (!reference.dryRun) {
    const expiresAt = Math.max(own?.expiresAt ?? 0, reference.expiresAt);
    if (own?.expiresAt !== expiresAt) state.put(state.blobs.references, { hash, owner, bytes, expiresAt });
  }
  return { status: "ok", known: known !== undefined };
}

/** Expired references do not count; they are looked for only when the sum with them is too much. */
function fitsQuota(state: State, { hash, owner, quotaBytes, now }: PutReference, bytes: number): boolean {
  if (state.blobIndex.bytesOf(owner) + bytes <= quotaBytes) return true;
  let others = 0;
  for (const row of state.blobIndex.referencesOf(owner)) {
    if (row.hash === hash && row.expiresAt > now) return true;
    if (row.hash !== hash && row.expiresAt > now) others += row.bytes;
  }
  return others + bytes <= quotaBytes;
}

/** See {@link BlobStore.findBlob}. */
export function findBlob(state: State, hash: BlobHash, now: number): { bytes: number } | null {
  const row = state.blobIndex.referencesTo(hash).find((reference) => reference.expiresAt > now);
  return row ? { bytes: row.bytes } : null;
}

/** See {@link BlobStore.deleteBlobReference}. */
export function deleteBlobReference(
  state: State,
  hash: BlobHash,
  owner: AccountId,
): { orphaned: boolean } | null {
  if (!state.blobs.references.has(hash + owner)) return null;
  state.remove(state.blobs.references, hash + owner);
  return { orphaned: state.blobIndex.referencesTo(hash).length === 0 };
}

/** See {@link BlobStore.expireBlobs}. */
export function expireBlobs(state: State, now: number, limit: number): BlobHash[] {
  const expired: BlobRow[] = [];
  for (const row of state.blobs.references.rows()) {
    if (expired.length >= limit) break;
    if (row.expiresAt <= now) expired.push(row);
  }
  return dropReferences(state, expired);
}

/** Removes all references of an owner; returns the blobs left without one. */
export function dropOwner(state: State, owner: AccountId): BlobHash[] {
  return dropReferences(state, state.blobIndex.referencesOf(owner));
}

function dropReferences(state: State, rows: readonly BlobRow[]): BlobHash[] {
  for (const row of rows) state.remove(state.blobs.references, row.hash + row.owner);
  const hashes = new Set(rows.map((row) => row.hash));
  return [...hashes].filter((hash) => state.blobIndex.referencesTo(hash).length === 0);
}

/** See {@link BlobStore.unreferencedBlobs}. */
export function unreferencedBlobs(state: State, hashes: readonly BlobHash[]): BlobHash[] {
  return hashes.filter((hash) => state.blobIndex.referencesTo(hash).length === 0);
}
