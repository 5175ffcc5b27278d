/** Accounts, reserved names, blocks and invitations in memory: tables, indexes and verbs of {@link AccountStore}. */
import { copy, hex } from "../../base/bytes.ts";
import type { AccountId, BlobHash, DeviceId, SessionId } from "../../base/ids.ts";
import type { Account, AccountStore, Credential, NewAccount } from "../store.ts";
import { dropOwner } from "./blobs.ts";
import { dropSenderRecords } from "./queues.ts";
import type { AccountRow, BlockRow, InvitationRow, NameRow } from "./rows.ts";
import { endSessionsOf, forgetDevice } from "./sessions.ts";
import type { State } from "./state.ts";
import { Table } from "./table.ts";

/** The tables of this file. */
export function accountTables() {
  return {
    names: new Table<NameRow>(10, {
      key: (row) => row.userName,
      columns: { userName: "text", accountId: "text" },
    }),
    accounts: new Table<AccountRow>(11, {
      key: (row) => row.accountId,
      columns: {
        accountId: "text",
        userName: "text",
        suiteId: "number",
        setupId: "number",
        record: "bytes",
        wrappedAccountKey: "bytes",
        accountKey: "bytes",
        createdAt: "number",
        enabled: "flag",
      },
    }),
    blocks: new Table<BlockRow>(12, {
      key: (row) => row.accountId + row.blocked,
      columns: { accountId: "text", blocked: "text" },
    }),
    invitations: new Table<InvitationRow>(13, {
      key: (row) => row.sha256,
      columns: { sha256: "text", createdBy: "text?", forAccount: "text?", expiresAt: "number" },
    }),
  };
}

/** Blocks by account, and how many accounts have their record under each setup. */
export class AccountIndex {
  readonly #blocked = new Map<AccountId, Set<AccountId>>();
  readonly #bySetup = new Map<number, number>();

  constructor(tables: ReturnType<typeof accountTables>) {
    tables.accounts.onChange = (before, after) => {
      if (before) this.#countSetup(before.setupId, -1);
      if (after) this.#countSetup(after.setupId, 1);
    };
    tables.blocks.onChange = (before, after) => {
      if (before) this.#remove(before);
      if (after) this.#add(after);
    };
  }

  /** Whom the account blocks. */
  blockedBy(accountId: AccountId): ReadonlySet<AccountId> {
    return this.#blocked.get(accountId) ?? new Set();
  }

  /** Accounts whose record was made under the setup. */
  accountsUnder(setupId: number): number {
    return this.#bySetup.get(setupId) ?? 0;
  }

  #countSetup(setupId: number, sign: 1 | -1): void {
    const accounts = this.accountsUnder(setupId) + sign;
    if (accounts === 0) this.#bySetup.delete(setupId);
    else this.#bySetup.set(setupId, accounts);
  }

  #add(row: BlockRow): void {
    const blocked = this.#blocked.get(row.accountId) ?? new Set();
    this.#blocked.set(row.accountId, blocked.add(row.blocked));
  }

  #remove(row: BlockRow): void {
    const blocked = this.#blocked.get(row.accountId);
    blocked?.delete(row.blocked);
    if (blocked?.size === 0) this.#blocked.delete(row.accountId);
  }
}

function toAccount(row: AccountRow): Account {
  return {
    accountId: row.accountId,
    userName: row.userName,
    credential: {
      suiteId: row.suiteId,
      setupId: row.setupId,
      record: copy(row.record),
      wrappedAccountKey: copy(row.wrappedAccountKey),
    },
    accountKey: copy(row.accountKey),
    createdAt: row.createdAt,
    enabled: row.enabled,
  };
}

function credentialFields(credential: Credential) {
  return {
    suiteId: credential.suiteId,
    setupId: credential.setupId,
    record: credential.record,
    wrappedAccountKey: credential.wrappedAccountKey,
  };
}

/** See {@link AccountStore.createAccount}. */
export function createAccount(
  state: State,
  account: NewAccount,
): Awaited<ReturnType<AccountStore["createAccount"]>> {
  const { invitations, names, accounts } = state.accounts;
  const invitationKey = account.invitationSha256 ? hex(account.invitationSha256) : null;
  if (invitationKey !== null) {
    const invitation = invitations.get(invitationKey);
    if (!invitation || invitation.expiresAt <= account.now) return { status: "invitationInvalid" };
    if (invitation.forAccount !== null) return resetAccount(state, account, invitation);
  }
  if (names.has(account.userName)) return { status: "nameTaken" };
  if (invitationKey !== null) state.remove(invitations, invitationKey);
  state.put(names, { userName: account.userName, accountId: account.accountId });
  state.put(accounts, {
    accountId: account.accountId,
    userName: account.userName,
    ...credentialFields(account.credential),
    accountKey: account.accountKey,
    createdAt: account.now,
    enabled: true,
  });
  return { status: "created", accountId: account.accountId };
}

/** The name must be the account's: OPAQUE records are bound to it, another would lock the account out. */
function resetAccount(
  state: State,
  account: NewAccount,
  invitation: InvitationRow,
): Awaited<ReturnType<AccountStore["createAccount"]>> {
  const { invitations, accounts } = state.accounts;
  const row = invitation.forAccount ? accounts.get(invitation.forAccount) : undefined;
  if (!row || row.userName !== account.userName) return { status: "invitationInvalid" };
  state.remove(invitations, invitation.sha256);
  for (const device of state.sessionIndex.devicesOf(row.accountId)) forgetDevice(state, device);
  state.put(accounts, {
    ...row,
    ...credentialFields(account.credential),
    accountKey: account.accountKey,
  });
  return { status: "created", accountId: row.accountId };
}

/** See {@link AccountStore.findAccountByName}. */
export function findAccountByName(state: State, userName: string): Account | null {
  const name = state.accounts.names.get(userName);
  return name ? findAccount(state, name.accountId) : null;
}

/** See {@link AccountStore.findAccount}. */
export function findAccount(state: State, accountId: AccountId): Account | null {
  const row = state.accounts.accounts.get(accountId);
  return row ? toAccount(row) : null;
}

/** See {@link AccountStore.changeCredential}. */
export function changeCredential(
  state: State,
  change: { accountId: AccountId; credential: Credential; keepSession: SessionId | "all" | null },
): boolean {
  const { accounts } = state.accounts;
  const row = accounts.get(change.accountId);
  if (!row) return false;
  state.put(accounts, { ...row, ...credentialFields(change.credential) });
  if (change.keepSession !== "all") endSessionsOf(state, change.accountId, change.keepSession);
  return true;
}

/** See {@link AccountStore.deleteAccount}. */
export function deleteAccount(
  state: State,
  accountId: AccountId,
): { devices: DeviceId[]; orphanedBlobs: BlobHash[] } | null {
  const { accounts, blocks, invitations } = state.accounts;
  if (!accounts.has(accountId)) return null;
  const devices = [...state.sessionIndex.devicesOf(accountId)];
  for (const device of devices) forgetDevice(state, device);
  for (const blocked of [...state.accountIndex.blockedBy(accountId)]) {
    state.remove(blocks, accountId + blocked);
  }
  for (const invitation of [...invitations.rows()]) {
    const concerned = invitation.createdBy === accountId || invitation.forAccount === accountId;
    if (concerned) state.remove(invitations, invitation.sha256);
  }
  dropSenderRecords(state, accountId);
  const orphanedBlobs = dropOwner(state, accountId);
  state.remove(accounts, accountId);
  return {
    devices: devices.filter((device) => !device.revoked).map((device) => device.deviceId),
    orphanedBlobs,
  };
}

/** See {@link AccountStore.setAccountEnabled}. */
export function setAccountEnabled(state: State, accountId: AccountId, enabled: boolean): boolean {
  const { accounts } = state.accounts;
  const row = accounts.get(accountId);
  if (!row) return false;
  if (row.enabled !== enabled) state.put(accounts, { ...row, enabled });
  if (!enabled) endSessionsOf(state, accountId, null);
  return true;
}

/** See {@link AccountStore.block}. */
export function block(state: State, row: BlockRow, max: number): boolean {
  const blocked = state.accountIndex.blockedBy(row.accountId);
  if (blocked.has(row.blocked)) return true;
  if (blocked.size >= max || !state.accounts.accounts.has(row.accountId)) return false;
  state.put(state.accounts.blocks, row);
  return true;
}

/** See {@link AccountStore.unblock}. */
export function unblock(state: State, row: BlockRow): void {
  state.remove(state.accounts.blocks, state.accounts.blocks.keyOf(row));
}

/** See {@link AccountStore.listBlocks}. */
export function listBlocks(state: State, accountId: AccountId): AccountId[] {
  return [...state.accountIndex.blockedBy(accountId)];
}

/** See {@link AccountStore.createInvitation}. Expired ones are cleared away here: they have no verb of their own. */
export function createInvitation(
  state: State,
  invitation: Parameters<AccountStore["createInvitation"]>[0],
): boolean {
  const { accounts, invitations } = state.accounts;
  const concerned = [invitation.createdBy, invitation.forAccount].filter((accountId) => accountId !== null);
  const known = concerned.every((accountId) => accounts.has(accountId));
  if (!known || invitations.has(hex(invitation.sha256))) return false;
  let open = 0;
  for (const row of [...invitations.rows()]) {
    if (row.expiresAt <= invitation.now) state.remove(invitations, row.sha256);
    else if (row.createdBy === invitation.createdBy) open++;
  }
  if (open >= invitation.maxOpen) return false;
  state.put(invitations, {
    sha256: hex(invitation.sha256),
    createdBy: invitation.createdBy,
    forAccount: invitation.forAccount,
    expiresAt: invitation.expiresAt,
  });
  return true;
}

/** See {@link AccountStore.hasInvitation}. */
export function hasInvitation(state: State, sha256: Uint8Array, now: number): boolean {
  const row = state.accounts.invitations.get(hex(sha256));
  return row !== undefined && row.expiresAt > now;
}
