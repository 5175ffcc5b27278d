/**
 * The state as rows that every backend understands (store_rows.ts), and rows back into a new state. A KeyPackage that
 * comes without its ref gets a key that no ref can have; its real ref is among the rows of refs.
 */
import { copy, fromHex, hex } from "../../base/bytes.ts";
import type { AccountId, DeviceId, EntryId } from "../../base/ids.ts";
import { QpqError } from "../../base/errors.ts";
import { BLOB_CACHE_OWNER } from "../store.ts";
import { type RowOf, type StoreRow } from "../store_rows.ts";
import { messageIdOf } from "./outbox.ts";
import { senderKeyOf } from "./queue_index.ts";
import { lettersOf, statusesOf } from "./status_letters.ts";
import type { BodyRow, KeyPackageRow, SenderKey } from "./rows.ts";
import type { State } from "./state.ts";
import { numberKey, type Table } from "./table.ts";

/** A row; of a payload everything but its bytes, which are still to be read. */
export type FoundRow =
  | { readonly row: StoreRow; readonly body?: undefined }
  | {
    readonly row: Omit<RowOf<"payload">, "bytes"> | Omit<RowOf<"outbox">, "bytes">;
    readonly body: BodyRow;
  };

const IMPORTED = "imported-";

/** Walks over everything. Nothing may change meanwhile. */
export function* walkState(state: State): Generator<FoundRow> {
  for (const row of plainRows(state)) yield { row };
  for (const row of state.queues.peers.rows()) yield { row: { kind: "peer", ...row } };
  yield* outboxRows(state);
  yield* payloadRows(state);
  for (const row of senderRows(state)) yield { row };
}

function* plainRows(state: State): Generator<StoreRow> {
  yield {
    kind: "store",
    incarnation: copy(state.meta.get("incarnation")!.bytes!),
    realmId: hex(state.meta.get("realmId")!.bytes!),
    mark: state.meta.get("mark")?.number ?? null,
  };
  const setups = [...state.setups.rows()].sort((a, b) => a.setupId - b.setupId);
  for (const setup of setups) yield { kind: "setup", ...setup };
  const { names, accounts, blocks, invitations } = state.accounts;
  for (const row of names.rows()) if (!accounts.has(row.accountId)) yield { kind: "reservedName", ...row };
  for (const { suiteId, setupId, record, wrappedAccountKey, ...row } of accounts.rows()) {
    yield { kind: "account", ...row, credential: { suiteId, setupId, record, wrappedAccountKey } };
  }
  for (const row of blocks.rows()) yield { kind: "block", ...row };
  for (const row of invitations.rows()) yield { kind: "invitation", ...row, sha256: fromHex(row.sha256) };
  for (const row of state.sessions.devices.rows()) yield { kind: "device", ...row };
  for (const { accountId: _, ...row } of state.sessions.sessions.rows()) yield { kind: "session", ...row };
  yield* keyPackageRows(state);
  for (const row of state.queues.queues.rows()) yield { kind: "queue", ...row };
}

function* keyPackageRows(state: State): Generator<StoreRow> {
  const { packages, lowNotices } = state.keyPackages;
  for (const { ref, notAfter } of packages.rows()) {
    if (!ref.startsWith(IMPORTED)) yield { kind: "keyPackageRef", ref: fromHex(ref), notAfter };
  }
  for (const { deviceId, suite, lastResort, notAfter, bytes } of packages.rows()) {
    if (bytes) yield { kind: "keyPackage", deviceId, suite, lastResort, notAfter, bytes };
  }
  for (const row of lowNotices.rows()) yield { kind: "lowSupply", ...row };
}

function* outboxRows(state: State): Generator<FoundRow> {
  const rows = [...state.queues.outbox.rows()].sort((a, b) => a.bodyId - b.bodyId);
  for (const { bodyId, domain, recipients } of rows) {
    const body = state.queues.bodies.get(numberKey(bodyId))!;
    const { acceptedAt, expiresAt } = body;
    const sender = { senderAccount: body.senderAccount!, senderDevice: body.senderDevice! };
    const messageId = messageIdOf(body);
    yield { row: { kind: "outbox", domain, ...sender, messageId, recipients, acceptedAt, expiresAt }, body };
  }
}

function* payloadRows(state: State): Generator<FoundRow> {
  const entries = new Map<number, { deviceId: DeviceId; seq: number }[]>();
  for (const { deviceId, seq, bodyId } of state.queues.entries.rows()) {
    const users = entries.get(bodyId) ?? [];
    entries.set(bodyId, users);
    users.push({ deviceId, seq });
  }
  for (const body of state.queues.bodies.rows()) {
    const { kind: entryKind, entryId, senderAccount, senderDevice, senderDomain, acceptedAt, expiresAt } =
      body;
    if (entryKind === "outbox") continue;
    const sender = { senderAccount, senderDevice, senderDomain };
    const row = { kind: "payload", entryKind, entryId, ...sender, acceptedAt, expiresAt } as const;
    yield { row: { ...row, entries: entries.get(body.bodyId) ?? [] }, body };
  }
}

function* senderRows(state: State): Generator<StoreRow> {
  const { messageIds, daily, guards } = state.queues;
  for (const { recipients, senderAccount, senderDevice, ...row } of messageIds.rows()) {
    const { accountId, domain } = accountOrDomain(senderAccount);
    const known = state.sessions.devices.has(senderDevice);
    const device = known ? senderDevice as DeviceId : null;
    const sender = { senderAccount: accountId, senderDomain: domain, senderDevice: device };
    yield { kind: "messageId", ...row, ...sender, ...statusesOf(recipients) };
  }
  for (const { accountId, ...row } of daily.rows()) {
    yield { kind: "daily", ...row, ...accountOrDomain(accountId) };
  }
  for (const row of guards.rows()) yield { kind: "guard", ...row };
  for (const row of state.blobs.references.rows()) {
    // Copies of other servers' blobs are fetched again.
    if (row.owner !== BLOB_CACHE_OWNER) yield { kind: "blobReference", ...row };
  }
}

function accountOrDomain(sender: SenderKey): { accountId: AccountId | null; domain: string | null } {
  if (sender.startsWith("@")) return { accountId: null, domain: sender.slice(1) };
  return { accountId: sender as AccountId, domain: null };
}

/** See AdminStore.importRows. */
export function importRows(state: State, rows: readonly StoreRow[]): void {
  for (const row of rows) importRow(state, row);
}

function importRow(state: State, row: StoreRow): void {
  switch (row.kind) {
    case "store":
      return importIdentity(state, row);
    case "setup":
      return put(state, state.setups, row);
    case "reservedName":
      return put(state, state.accounts.names, row);
    case "account": {
      const { credential, ...fields } = row;
      put(state, state.accounts.names, row);
      return put(state, state.accounts.accounts, { ...fields, ...credential });
    }
    case "block":
      return put(state, state.accounts.blocks, row);
    case "invitation":
      return put(state, state.accounts.invitations, { ...row, sha256: hex(row.sha256) });
    case "device":
      return put(state, state.sessions.devices, row);
    case "session": {
      const { accountId } = state.sessions.devices.get(row.deviceId)!;
      return put(state, state.sessions.sessions, { ...row, accountId });
    }
    case "keyPackageRef":
    case "keyPackage":
      return put(state, state.keyPackages.packages, packageRow(state, row));
    case "lowSupply":
      return put(state, state.keyPackages.lowNotices, row);
    case "queue":
      return put(state, state.queues.queues, row);
    case "peer":
      return put(state, state.queues.peers, row);
    case "outbox":
      return importOutbox(state, row);
    case "payload":
      return importPayload(state, row);
    case "messageId": {
      const senderAccount = senderKeyOf<SenderKey | null>(row.senderDomain, row.senderAccount)!;
      const fields = {
        recipients: lettersOf(row),
        senderAccount,
        senderDevice: row.senderDomain === null ? row.senderDevice ?? "" as DeviceId : senderAccount,
      };
      return put(state, state.queues.messageIds, { ...row, ...fields });
    }
    case "daily": {
      const accountId = senderKeyOf<SenderKey | null>(row.domain, row.accountId)!;
      return put(state, state.queues.daily, { ...row, accountId });
    }
    case "guard":
      return put(state, state.queues.guards, row);
    case "blobReference":
      return put(state, state.blobs.references, row);
  }
}

/** What is imported has other fields, too; rows in memory have those of their table. */
function put<Row extends object>(state: State, table: Table<Row>, row: Row): void {
  state.put(table, table.pick(row));
}

function importIdentity(state: State, row: RowOf<"store">): void {
  if (state.accounts.names.size > 0 || state.setups.size > 0) {
    throw new QpqError("storeUnavailable", "Cannot import into a store that is not empty");
  }
  state.put(state.meta, { name: "incarnation", number: null, bytes: row.incarnation });
  state.put(state.meta, { name: "realmId", number: null, bytes: fromHex(row.realmId) });
  if (row.mark !== null) state.put(state.meta, { name: "mark", number: row.mark, bytes: null });
}

function packageRow(state: State, row: RowOf<"keyPackageRef"> | RowOf<"keyPackage">): KeyPackageRow {
  if (row.kind === "keyPackage") {
    return { ...row, ref: IMPORTED + numberKey(state.keyPackages.packages.size) };
  }
  const { notAfter } = row;
  return { ref: hex(row.ref), deviceId: "" as DeviceId, suite: 0, bytes: null, notAfter, lastResort: false };
}

function importPayload(state: State, row: RowOf<"payload">): void {
  const { entryKind, bytes, entries, ...fields } = row;
  if (state.queues.entries.size + entries.length > state.limits.queueEntriesMax) {
    throw new QpqError(
      "storeFull",
      `Cannot import as the file backend holds at most ${state.limits.queueEntriesMax} waiting entries: keep ` +
        `the sqlcipher backend, or wait until the queues are shorter`,
    );
  }
  const bodyId = state.queueIndex.newBodyId();
  const place = { segment: 0, offset: 0, length: bytes.length };
  put(state, state.queues.bodies, { ...fields, kind: entryKind, bodyId, ...place });
  state.stagePayload(numberKey(bodyId), bytes);
  for (const entry of entries) state.put(state.queues.entries, { ...entry, bodyId });
}

function importOutbox(state: State, row: RowOf<"outbox">): void {
  const { bytes, messageId, domain, recipients } = row;
  const bodyId = state.queueIndex.newBodyId();
  const place = { segment: 0, offset: 0, length: bytes.length };
  const fields = {
    bodyId,
    kind: "outbox",
    entryId: messageId as string as EntryId,
    senderDomain: null,
  } as const;
  put(state, state.queues.bodies, { ...row, ...fields, ...place });
  state.stagePayload(numberKey(bodyId), bytes);
  put(state, state.queues.outbox, { bodyId, domain, recipients });
}
