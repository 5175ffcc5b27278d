/** The verbs of AccountStore inside the worker; see store.ts for what they promise. */
import { type AccountId, type BlobHash, type DeviceId, idOf, type SessionId } from "../../base/ids.ts";
import type { Account, AccountStore, Credential, NewAccount } from "../store.ts";
import type { Blobs } from "./blobs.ts";
import type { Connection, Prepared } from "./connection.ts";
import type { Devices } from "./devices.ts";
import type { Ledger } from "./ledger.ts";

interface AccountRow {
  id: number;
  account_id: Uint8Array;
  user_name: string;
  suite_id: number;
  setup_id: number;
  record: Uint8Array;
  wrapped_account_key: Uint8Array;
  account_key: Uint8Array;
  created_at: number;
  enabled: number;
}

interface InvitationRow {
  for_account: number | null;
  expires_at: number;
}

type Invitation = Parameters<AccountStore["createInvitation"]>[0];
type CreateResult = Awaited<ReturnType<AccountStore["createAccount"]>>;

const COLUMNS =
  `id, account_id, user_name, suite_id, setup_id, record, wrapped_account_key, account_key, created_at,
  enabled`;
/** Expired invitations that go with each new one. */
const SWEEP_MAX = 16;

/** Accounts, blocks and invitations. */
export class Accounts {
  readonly #ledger: Ledger;
  readonly #devices: Devices;
  readonly #blobs: Blobs;
  readonly #findByName: Prepared<AccountRow>;
  readonly #find: Prepared<AccountRow>;
  readonly #findByKey: Prepared<AccountRow>;
  readonly #nameUsed: Prepared<{ id: number }>;
  readonly #insert: Prepared<never>;
  readonly #setCredential: Prepared<never>;
  readonly #setAccountKey: Prepared<never>;
  readonly #setEnabled: Prepared<never>;
  readonly #entomb: Prepared<never>;
  readonly #deletes: Prepared<never>[];
  readonly #block: Prepared<never>;
  readonly #unblock: Prepared<never>;
  readonly #listBlocks: Prepared<{ blocked: Uint8Array }>;
  readonly #findInvitation: Prepared<InvitationRow>;
  readonly #deleteInvitation: Prepared<never>;
  readonly #openInvitations: Prepared<{ count: number }>;
  readonly #insertInvitation: Prepared<never>;
  readonly #sweepInvitations: Prepared<never>;

  constructor(connection: Connection, parts: { ledger: Ledger; devices: Devices; blobs: Blobs }) {
    this.#ledger = parts.ledger;
    this.#devices = parts.devices;
    this.#blobs = parts.blobs;
    const prepare = <Row = never>(sql: string) => connection.prepare<Row>(sql);
    const find = `SELECT ${COLUMNS} FROM accounts WHERE deleted_at IS NULL AND`;
    this.#findByName = prepare(`${find} user_name = ?`);
    this.#find = prepare(`${find} account_id = ?`);
    this.#findByKey = prepare(`${find} id = ?`);
    this.#nameUsed = prepare("SELECT id FROM accounts WHERE user_name = ?");
    this.#insert = prepare(
      `INSERT INTO accounts (account_id, user_name, suite_id, setup_id, record, wrapped_account_key, account_key,
       created_at) VALUES (?, ?, ?, ?, ifnull(?, x''), ifnull(?, x''), ifnull(?, x''), ?)`,
    );
    this.#setCredential = prepare(
      `UPDATE accounts SET suite_id = ?, setup_id = ?, record = ifnull(?, x''),
       wrapped_account_key = ifnull(?, x'') WHERE id = ?`,
    );
    this.#setAccountKey = prepare("UPDATE accounts SET account_key = ifnull(?, x'') WHERE id = ?");
    this.#setEnabled = prepare("UPDATE accounts SET enabled = ? WHERE id = ?");
    this.#entomb = prepare(
      `UPDATE accounts SET deleted_at = ?, suite_id = NULL, setup_id = NULL, record = NULL,
       wrapped_account_key = NULL, account_key = NULL WHERE id = ?`,
    );
    this.#deletes = [
      "blocks WHERE account",
      "invitations WHERE created_by",
      "invitations WHERE for_account",
      "daily WHERE account",
    ].map((what) => prepare(`DELETE FROM ${what} = ?`));
    this.#block = prepare("INSERT INTO blocks (account, blocked) VALUES (?, ?)");
    this.#unblock = prepare("DELETE FROM blocks WHERE account = ? AND blocked = ?");
    this.#listBlocks = prepare("SELECT blocked FROM blocks WHERE account = ?");
    this.#findInvitation = prepare("SELECT for_account, expires_at FROM invitations WHERE sha256 = ?");
    this.#deleteInvitation = prepare("DELETE FROM invitations WHERE sha256 = ?");
    this.#openInvitations = prepare(
      "SELECT count(*) AS count FROM invitations WHERE created_by = ? AND expires_at > ?",
    );
    this.#insertInvitation = prepare(
      "INSERT INTO invitations (sha256, created_by, for_account, expires_at) VALUES (?, ?, ?, ?)",
    );
    this.#sweepInvitations = prepare(
      "DELETE FROM invitations WHERE expires_at <= ? ORDER BY expires_at LIMIT ?",
    );
  }

  createAccount(account: NewAccount): CreateResult {
    const { userName, invitationSha256, now } = account;
    if (invitationSha256) {
      const invitation = this.#openInvitation(invitationSha256, now);
      if (!invitation) return { status: "invitationInvalid" };
      if (invitation.for_account !== null) {
        return this.#registerAgain(account, { invitationSha256, target: invitation.for_account });
      }
    }
    if (this.#nameUsed.get(userName)) return { status: "nameTaken" };
    if (invitationSha256) this.#deleteInvitation.run(invitationSha256);
    const { suiteId, setupId, record, wrappedAccountKey } = account.credential;
    this.#insert.insert(
      Uint8Array.fromHex(account.accountId),
      userName,
      suiteId,
      setupId,
      record,
      wrappedAccountKey,
      account.accountKey,
      now,
    );
    this.#ledger.totals.change().accounts += 1;
    return { status: "created", accountId: account.accountId };
  }

  /** A reset: the record is bound to the name (OPAQUE's credential identifier), so another name cannot use it. */
  #registerAgain(
    account: NewAccount,
    reset: { invitationSha256: Uint8Array; target: number },
  ): CreateResult {
    const row = this.#findByKey.get(reset.target);
    if (!row || row.user_name !== account.userName) return { status: "invitationInvalid" };
    this.#deleteInvitation.run(reset.invitationSha256);
    this.#setCredentialOf(row.id, account.credential);
    this.#setAccountKey.run(account.accountKey, row.id);
    this.#devices.forgetAll(row.id);
    return { status: "created", accountId: idOf(row.account_id) };
  }

  #setCredentialOf(account: number, credential: Credential): void {
    const { suiteId, setupId, record, wrappedAccountKey } = credential;
    this.#setCredential.run(suiteId, setupId, record, wrappedAccountKey, account);
  }

  findAccountByName(userName: string): Account | null {
    return accountOf(this.#findByName.get(userName));
  }

  findAccount(accountId: AccountId): Account | null {
    return accountOf(this.#row(accountId));
  }

  #row(accountId: AccountId): AccountRow | undefined {
    return this.#find.get(Uint8Array.fromHex(accountId));
  }

  changeCredential(
    change: { accountId: AccountId; credential: Credential; keepSession: SessionId | "all" | null },
  ): boolean {
    const row = this.#row(change.accountId);
    if (!row) return false;
    this.#setCredentialOf(row.id, change.credential);
    if (change.keepSession !== "all") this.#devices.endSessionsOf(row.id, change.keepSession);
    return true;
  }

  deleteAccount(
    accountId: AccountId,
    now: number,
  ): { devices: DeviceId[]; orphanedBlobs: BlobHash[] } | null {
    const row = this.#row(accountId);
    if (!row) return null;
    const devices = this.#devices.forgetAll(row.id);
    const orphanedBlobs = this.#blobs.deleteAllOf(row.id);
    this.#ledger.settle();
    this.#ledger.dropSums(accountId);
    this.#ledger.dropBlocks(row.id);
    for (const statement of this.#deletes) statement.run(row.id);
    this.#entomb.run(now, row.id);
    this.#ledger.totals.change().accounts -= 1;
    return { devices, orphanedBlobs };
  }

  setAccountEnabled(accountId: AccountId, enabled: boolean): boolean {
    const row = this.#row(accountId);
    if (!row) return false;
    this.#setEnabled.run(enabled ? 1 : 0, row.id);
    if (!enabled) this.#devices.endSessionsOf(row.id, null);
    return true;
  }

  block(accountId: AccountId, blocked: AccountId, max: number): boolean {
    const row = this.#row(accountId);
    if (!row) return false;
    const blocks = this.#ledger.blocks(row.id);
    if (blocks.has(blocked)) return true;
    if (blocks.size >= max) return false;
    this.#block.run(row.id, Uint8Array.fromHex(blocked));
    this.#ledger.dropBlocks(row.id);
    return true;
  }

  unblock(accountId: AccountId, blocked: AccountId): void {
    const row = this.#row(accountId);
    if (!row) return;
    this.#unblock.run(row.id, Uint8Array.fromHex(blocked));
    this.#ledger.dropBlocks(row.id);
  }

  listBlocks(accountId: AccountId): AccountId[] {
    const row = this.#row(accountId);
    return row ? this.#listBlocks.all(row.id).map(({ blocked }) => idOf(blocked)) : [];
  }

  createInvitation(invitation: Invitation): boolean {
    const { sha256, createdBy, forAccount, expiresAt, maxOpen, now } = invitation;
    const creator = createdBy === null ? 0 : this.#row(createdBy)?.id;
    const target = forAccount === null ? null : this.#row(forAccount)?.id;
    if (creator === undefined || target === undefined) return false;
    this.#sweepInvitations.run(now, SWEEP_MAX);
    if (this.#openInvitations.get(creator, now)!.count >= maxOpen) return false;
    if (this.#findInvitation.get(sha256)) return false;
    this.#insertInvitation.run(sha256, creator, target, expiresAt);
    return true;
  }

  hasInvitation(sha256: Uint8Array, now: number): boolean {
    return this.#openInvitation(sha256, now) !== undefined;
  }

  #openInvitation(sha256: Uint8Array, now: number): InvitationRow | undefined {
    const row = this.#findInvitation.get(sha256);
    return row && row.expires_at > now ? row : undefined;
  }
}

function accountOf(row: AccountRow | undefined): Account | null {
  if (!row) return null;
  return {
    accountId: idOf(row.account_id),
    userName: row.user_name,
    credential: {
      suiteId: row.suite_id,
      setupId: row.setup_id,
      record: row.record,
      wrappedAccountKey: row.wrapped_account_key,
    },
    accountKey: row.account_key,
    createdAt: row.created_at,
    enabled: row.enabled === 1,
  };
}
