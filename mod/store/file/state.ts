/**
 * Everything the file backend knows, in memory: the tables, the indexes over them, and the record of what the verbs
 * of the current batch changed. Verbs read tables and indexes freely and change rows through {@link State.put} and
 * {@link State.remove} only; so each change can be written (as the row that is there in the end, whatever verb made
 * it: a journal means the same to every later version) and each can be undone.
 */
import type { DeviceId } from "../../base/ids.ts";
import { AccountIndex, accountTables } from "./accounts.ts";
import { BlobIndex, blobTables } from "./blobs.ts";
import { KeyPackageIndex, keyPackageTables } from "./keypackages.ts";
import { QueueIndex, queueTables } from "./queue_index.ts";
import type { EntryRow, MetaRow, OutboxRow, SetupRow } from "./rows.ts";
import { SessionIndex, sessionTables } from "./sessions.ts";
import { type AnyTable, numberKey, Table } from "./table.ts";

/** One change of the current batch: the row that was there before (undefined: none). */
interface Change {
  readonly table: AnyTable;
  readonly key: string;
  readonly before: unknown;
}

/** A change as it is written: the row's fields, or null when it is gone. */
export interface NetChange {
  readonly table: AnyTable;
  readonly key: string;
}

/** Bounds of this backend. */
export interface StateLimits {
  /** Entries in all queues together. */
  readonly queueEntriesMax: number;
}

/** Tables, indexes and the current batch. */
export class State {
  readonly limits: StateLimits;
  readonly meta = new Table<MetaRow>(1, {
    key: (row) => row.name,
    columns: { name: "text", number: "number?", bytes: "bytes?" },
  });
  readonly setups = new Table<SetupRow>(2, {
    key: (row) => numberKey(row.setupId),
    columns: {
      setupId: "number",
      suiteId: "number",
      secret: "bytes",
      createdAt: "number",
      retiredAt: "number?",
    },
  });
  readonly accounts = accountTables();
  readonly sessions = sessionTables();
  readonly keyPackages = keyPackageTables();
  readonly queues = queueTables();
  readonly blobs = blobTables();
  readonly accountIndex = new AccountIndex(this.accounts);
  readonly sessionIndex = new SessionIndex(this.sessions);
  readonly keyPackageIndex = new KeyPackageIndex(this.keyPackages);
  readonly queueIndex = new QueueIndex(this.queues);
  readonly blobIndex = new BlobIndex(this.blobs);
  /** Every table by its number on disk. */
  readonly tables: ReadonlyMap<number, AnyTable>;
  /** Payload bytes of bodies that are not written yet, by body key. */
  readonly payloads = new Map<string, Uint8Array>();
  #payloadBytes = 0;
  #changes: Change[] = [];

  constructor(limits: StateLimits) {
    this.limits = limits;
    const groups = [this.accounts, this.sessions, this.keyPackages, this.queues, this.blobs];
    const tables: AnyTable[] = [this.meta, this.setups, ...groups.flatMap((group) => Object.values(group))];
    this.tables = new Map(tables.map((table) => [table.id, table]));
  }

  /** Sets a row. */
  put<Row extends object>(table: Table<Row>, row: Row): void {
    table.check(row);
    const key = table.keyOf(row);
    this.#changes.push({ table, key, before: table.replace(key, row) });
  }

  /** Deletes a row if it is there. */
  remove<Row extends object>(table: Table<Row>, key: string): void {
    if (!table.has(key)) return;
    this.#changes.push({ table, key, before: table.replace(key, undefined) });
  }

  /** Keeps the bytes of a new or moving body until the batch is written. */
  stagePayload(bodyKey: string, payload: Uint8Array): void {
    this.payloads.set(bodyKey, payload);
    this.#payloadBytes += payload.length;
  }

  /** Payload bytes that the current batch will write. */
  get stagedBytes(): number {
    return this.#payloadBytes;
  }

  /** How many changes the current batch holds; a point to roll back to. */
  get changeCount(): number {
    return this.#changes.length;
  }

  /** Undoes what was changed after `changeCount` was `point`. */
  rollback(point: number): void {
    while (this.#changes.length > point) {
      const change = this.#changes.pop()!;
      change.table.restore(change.key, change.before);
    }
  }

  /** Ends the batch: its changes are written, or undone. */
  endBatch(): void {
    this.#changes = [];
    this.payloads.clear();
    this.#payloadBytes = 0;
  }

  /** What the batch changed in the end, each row once; rows that came and went are left out. */
  netChanges(): NetChange[] {
    const seen = new Map<AnyTable, Set<string>>();
    const net: NetChange[] = [];
    for (const { table, key, before } of this.#changes) {
      const keys = seen.get(table) ?? new Set();
      if (keys.has(key)) continue;
      seen.set(table, keys.add(key));
      if (before !== undefined || table.has(key)) net.push({ table, key });
    }
    return net;
  }

  /** Devices whose queues got entries in this batch. */
  enqueuedDevices(): Set<DeviceId> {
    const devices = new Set<DeviceId>();
    for (const { table, key, before } of this.#changes) {
      if (table !== this.queues.entries || before !== undefined) continue;
      const entry: EntryRow | undefined = this.queues.entries.get(key);
      if (entry) devices.add(entry.deviceId);
    }
    return devices;
  }

  /** Domains whose outboxes got messages in this batch. */
  relayingDomains(): Set<string> {
    const domains = new Set<string>();
    for (const { table, key, before } of this.#changes) {
      if (table !== this.queues.outbox || before !== undefined) continue;
      const row: OutboxRow | undefined = this.queues.outbox.get(key);
      if (row) domains.add(row.domain);
    }
    return domains;
  }

  /** Builds the indexes after every row was loaded. */
  loaded(): void {
    for (const table of this.tables.values()) table.loaded();
  }
}
