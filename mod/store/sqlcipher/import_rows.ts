/**
 * Rows of store_rows.ts into a new database: everything that follows from them (counters, shares, references) is made
 * on the way. What the ledger holds is forgotten afterwards.
 */
import { QpqError } from "../../base/errors.ts";
import type { RowKind, RowOf, StoreRow } from "../store_rows.ts";
import type { Connection, Prepared, Value } from "./connection.ts";
import type { Ledger } from "./ledger.ts";
import { writeStatuses } from "./message_ids.ts";

type Importers = { readonly [Kind in RowKind]: (row: RowOf<Kind>) => void };

const fromHex = (text: string) => Uint8Array.fromHex(text);

/** Imports rows on one connection. */
export class Importer {
  readonly #connection: Connection;
  readonly #ledger: Ledger;
  readonly #statements = new Map<string, Prepared<Record<string, number>>>();

  constructor(connection: Connection, ledger: Ledger) {
    this.#connection = connection;
    this.#ledger = ledger;
  }

  /** See AdminStore.importRows. */
  importRows(rows: readonly StoreRow[]): void {
    this.#ledger.settle();
    for (const row of rows) (this.#importers[row.kind] as (row: StoreRow) => void)(row);
    this.#ledger.forget();
  }

  #run(sql: string, ...params: Value[]): Record<string, number> | undefined {
    let statement = this.#statements.get(sql);
    if (!statement) {
      statement = this.#connection.prepare<Record<string, number>>(sql);
      this.#statements.set(sql, statement);
    }
    return statement.get(...params);
  }

  /** Integer key of an account, also a deleted one. */
  #account(accountId: string): number {
    return this.#find("SELECT id FROM accounts WHERE account_id = ?", accountId);
  }

  #device(deviceId: string): number {
    return this.#find("SELECT id FROM devices WHERE device_id = ?", deviceId);
  }

  #find(sql: string, idText: string): number {
    const row = this.#run(sql, fromHex(idText));
    if (!row) {
      throw new QpqError("storeUnavailable", `Cannot import a row as it refers to nothing: ${idText}`);
    }
    return row.id!;
  }

  /** Key of a sender: negative for a peer. */
  #sender(accountId: string | null, domain: string | null): number {
    if (domain !== null) return -this.#peer(domain);
    return accountId === null ? 0 : this.#account(accountId);
  }

  #peer(domain: string): number {
    return this.#run("SELECT id FROM peers WHERE domain = ?", domain)!.id!;
  }

  readonly #importers: Importers = {
    store: ({ incarnation, realmId, mark }) => {
      if (this.#run("SELECT 1 AS id FROM accounts UNION ALL SELECT 1 FROM opaque_setups LIMIT 1")) {
        throw new QpqError("storeUnavailable", "Cannot import into a store that is not empty");
      }
      this.#run(
        "UPDATE store SET incarnation = ?, realm_id = ?, mark = ? WHERE id = 1",
        incarnation,
        realmId,
        mark,
      );
    },
    setup: ({ setupId, suiteId, secret, createdAt, retiredAt }) => {
      this.#run(
        "INSERT INTO opaque_setups VALUES (?, ?, ?, ?, ?)",
        setupId,
        suiteId,
        secret,
        createdAt,
        retiredAt,
      );
    },
    reservedName: ({ userName, accountId }) => {
      this.#run(
        "INSERT INTO accounts (account_id, user_name, created_at, deleted_at) VALUES (?, ?, 0, 0)",
        fromHex(accountId),
        userName,
      );
    },
    account: ({ credential, ...row }) => {
      this.#run(
        `INSERT INTO accounts (account_id, user_name, suite_id, setup_id, record, wrapped_account_key, account_key,
         created_at, enabled) VALUES (?, ?, ?, ?, ifnull(?, x''), ifnull(?, x''), ifnull(?, x''), ?, ?)`,
        fromHex(row.accountId),
        row.userName,
        credential.suiteId,
        credential.setupId,
        credential.record,
        credential.wrappedAccountKey,
        row.accountKey,
        row.createdAt,
        row.enabled ? 1 : 0,
      );
      this.#ledger.totals.change().accounts += 1;
    },
    block: ({ accountId, blocked }) => {
      this.#run("INSERT INTO blocks VALUES (?, ?)", this.#account(accountId), fromHex(blocked));
    },
    invitation: ({ sha256, createdBy, forAccount, expiresAt }) => {
      const creator = createdBy === null ? 0 : this.#account(createdBy);
      const target = forAccount === null ? null : this.#account(forAccount);
      this.#run("INSERT INTO invitations VALUES (?, ?, ?, ?)", sha256, creator, target, expiresAt);
    },
    device: (row) => {
      this.#run(
        `INSERT INTO devices (device_id, account, device_key, name, account_signature, created_at, last_seen_at,
         revoked) VALUES (?, ?, ifnull(?, x''), ?, ?, ?, ?, ?)`,
        fromHex(row.deviceId),
        this.#account(row.accountId),
        row.deviceKey,
        row.name,
        row.accountSignature,
        row.createdAt,
        row.lastSeenAt,
        row.revoked ? 1 : 0,
      );
      if (!row.revoked) this.#ledger.totals.change().devices += 1;
    },
    session: ({ sessionId, deviceId, createdAt, lastSeenAt, ended }) => {
      const device = this.#device(deviceId);
      const times = [createdAt, lastSeenAt, ended ? 1 : 0];
      this.#run("INSERT INTO sessions VALUES (?, ?, ?, ?, ?)", fromHex(sessionId), device, ...times);
    },
    keyPackageRef: ({ ref, notAfter }) => {
      this.#run("INSERT INTO key_package_refs VALUES (?, ?)", ref, notAfter);
    },
    keyPackage: ({ deviceId, suite, lastResort, notAfter, bytes }) => {
      this.#run(
        "INSERT INTO key_packages (device, suite, last_resort, not_after, bytes) VALUES (?, ?, ?, ?, ifnull(?, x''))",
        this.#device(deviceId),
        suite,
        lastResort ? 1 : 0,
        notAfter,
        bytes,
      );
      this.#ledger.totals.change().keyPackages += 1;
    },
    lowSupply: ({ deviceId, suite }) => {
      this.#run("INSERT INTO key_package_lows VALUES (?, ?)", this.#device(deviceId), suite);
    },
    queue: ({ deviceId, nextSeq, ackedThrough, droppedThrough, droppedCount }) => {
      this.#run(
        `INSERT INTO queues (device, next_seq, acked_through, dropped_through, dropped_count) VALUES (?, ?, ?, ?, ?)`,
        this.#device(deviceId),
        nextSeq,
        ackedThrough,
        droppedThrough,
        droppedCount,
      );
    },
    peer: ({ domain, blockedAt }) => {
      this.#run("INSERT INTO peers (domain, blocked_at) VALUES (?, ?)", domain, blockedAt);
    },
    outbox: (row) => {
      const peer = this.#peer(row.domain);
      const size = row.bytes.length;
      this.#run(
        `INSERT INTO outbox
         (peer, sender_account, sender_device, message_id, recipients, accepted_at, expires_at, size, body)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ifnull(?, x''))`,
        ...[peer, fromHex(row.senderAccount), fromHex(row.senderDevice), fromHex(row.messageId)],
        ...[row.recipients, row.acceptedAt, row.expiresAt, size, row.bytes],
      );
      this.#run("UPDATE peers SET depth = depth + 1, bytes = bytes + ? WHERE id = ?", size, peer);
      const totals = this.#ledger.totals.change();
      totals.outboxEntries += 1;
      totals.outboxBytes += size;
    },
    payload: (row) => this.#importPayload(row),
    messageId: (row) => {
      const sender = this.#sender(row.senderAccount, row.senderDomain);
      const device = sender < 0 ? sender : row.senderDevice === null ? 0 : this.#device(row.senderDevice);
      const [table, key] = sender < 0 ? ["peers", "id"] : ["queues", "device"];
      const numbered = this.#run(
        `UPDATE ${table} SET sent_next = sent_next + 1 WHERE ${key} = ? RETURNING sent_next - 1 AS number`,
        Math.abs(device),
      );
      this.#run(
        `INSERT INTO message_ids (account, device, number, message_id, request_sha256, accepted_at, expires_at,
         statuses) VALUES (?, ?, ?, ?, ?, ?, ?, ifnull(?, x''))`,
        sender,
        device,
        numbered?.number ?? 0,
        fromHex(row.messageId),
        row.requestSha256,
        row.acceptedAt,
        row.expiresAt,
        writeStatuses(row),
      );
    },
    daily: ({ accountId, domain, day, sentBytes, guards }) => {
      const sender = this.#sender(accountId, domain);
      this.#run("INSERT INTO daily VALUES (?, ?, ?, ?)", sender, day, sentBytes, guards);
    },
    guard: ({ groupId, epoch, tokenSha256, usedAt }) => {
      this.#run("INSERT INTO guards VALUES (?, ?, ?, ?)", fromHex(groupId), epoch, tokenSha256, usedAt);
    },
    blobReference: (row) => this.#importBlobReference(row),
  };

  #importPayload(row: RowOf<"payload">): void {
    const sender = this.#sender(row.senderAccount, row.senderDomain);
    // A peer's sender has both ids in one column.
    const ids = row.senderDomain === null ? row.senderDevice : row.senderDevice! + row.senderAccount!;
    const entries = row.entries.map(({ deviceId, seq }) => ({ device: this.#device(deviceId), seq }));
    if (entries.length === 0) return;
    const pairs = new Float64Array(entries.flatMap(({ device, seq }) => [device, seq]));
    const payload = this.#run(
      `INSERT INTO payloads (entry_id, sender, sender_device, accepted_at, expires_at, recipients, bytes)
       VALUES (?, ?, ?, ?, ?, ?, ifnull(?, x'')) RETURNING id`,
      fromHex(row.entryId),
      sender,
      ids && fromHex(ids),
      row.acceptedAt,
      row.expiresAt,
      new Uint8Array(pairs.buffer),
      row.bytes,
    )!.id!;
    const shared = entries.length > 1;
    if (shared) this.#run("INSERT INTO payload_refs VALUES (?, ?)", payload, entries.length);
    const size = row.bytes.length;
    for (const { device, seq } of entries) {
      const fields = [device, seq, payload, size, row.expiresAt, sender, shared ? 1 : 0];
      this.#run("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", ...fields);
      this.#run("UPDATE queues SET depth = depth + 1, bytes = bytes + ? WHERE device = ?", size, device);
      if (sender !== 0) this.#countShare(device, sender, size);
    }
    const totals = this.#ledger.totals.change();
    totals.queueEntries += entries.length;
    totals.queueBytes += size * entries.length;
  }

  #countShare(device: number, account: number, size: number): void {
    this.#run(
      `INSERT INTO senders VALUES (?, ?, 1, ?) ON CONFLICT (device, account)
       DO UPDATE SET depth = depth + 1, bytes = bytes + excluded.bytes`,
      device,
      account,
      size,
    );
  }

  #importBlobReference({ hash, owner, bytes, expiresAt }: RowOf<"blobReference">): void {
    const account = this.#account(owner);
    const { refs } = this.#run(
      `INSERT INTO blobs VALUES (?, ?, 1) ON CONFLICT (hash) DO UPDATE SET refs = refs + 1 RETURNING refs`,
      fromHex(hash),
      bytes,
    )!;
    this.#run("INSERT INTO blob_refs VALUES (?, ?, ?)", fromHex(hash), account, expiresAt);
    this.#run(
      "INSERT INTO blob_owners VALUES (?, ?) ON CONFLICT (owner) DO UPDATE SET bytes = bytes + excluded.bytes",
      account,
      bytes,
    );
    if (refs !== 1) return;
    const totals = this.#ledger.totals.change();
    totals.blobs += 1;
    totals.blobBytes += bytes;
  }
}
