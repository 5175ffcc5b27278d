/** The numbers of the whole store, for gauges: kept in memory and written when a transaction commits. */
import type { StoreCounts } from "../store.ts";
import type { Connection, Prepared } from "./connection.ts";

type Counts = { -readonly [Name in keyof StoreCounts]: number };

/** The row `store`, as far as it counts. */
export class Totals {
  readonly #find: Prepared<Record<string, number>>;
  readonly #update: Prepared<never>;
  #counts: Counts | undefined;
  #dirty = false;

  constructor(connection: Connection) {
    this.#find = connection.prepare(
      `SELECT accounts, devices, queue_entries, queue_bytes, key_packages, blobs, blob_bytes,
       outbox_entries, outbox_bytes FROM store WHERE id = 1`,
    );
    this.#update = connection.prepare(
      `UPDATE store SET accounts = ?, devices = ?, queue_entries = ?, queue_bytes = ?, key_packages = ?, blobs = ?,
       blob_bytes = ?, outbox_entries = ?, outbox_bytes = ? WHERE id = 1`,
    );
  }

  /** The numbers, to look at. */
  view(): Readonly<Counts> {
    return this.#counts ??= this.#load();
  }

  /** The numbers, to change; written at the next flush. */
  change(): Counts {
    this.#dirty = true;
    return this.#counts ??= this.#load();
  }

  #load(): Counts {
    const row = this.#find.get()!;
    return {
      accounts: row.accounts!,
      devices: row.devices!,
      queueEntries: row.queue_entries!,
      queueBytes: row.queue_bytes!,
      keyPackages: row.key_packages!,
      blobs: row.blobs!,
      blobBytes: row.blob_bytes!,
      outboxEntries: row.outbox_entries!,
      outboxBytes: row.outbox_bytes!,
    };
  }

  /** Writes them when they have changed. */
  flush(): void {
    if (!this.#dirty || !this.#counts) return;
    const { accounts, devices, queueEntries, queueBytes, keyPackages, blobs, blobBytes } = this.#counts;
    const outbox = [this.#counts.outboxEntries, this.#counts.outboxBytes];
    const queues = [queueEntries, queueBytes];
    this.#update.run(accounts, devices, ...queues, keyPackages, blobs, blobBytes, ...outbox);
    this.#dirty = false;
  }

  /** Forgets them, as after a rollback. */
  clear(): void {
    this.#counts = undefined;
    this.#dirty = false;
  }
}
