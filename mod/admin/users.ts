/**
 * `user …`: accounts as their operator sees them. What ends sessions closes their connections in the running server.
 * Messages, names of groups and passwords are not here: the server does not have them.
 */
import { hashInvitation, makeInvitation } from "../auth/tokens.ts";
import type { AccountId } from "../base/ids.ts";
import type { Account, Device } from "../store/store.ts";
import { BlobFiles } from "../store/blob_files.ts";
import type { BlobHash } from "../base/ids.ts";
import { type AdminContext, AdminError, type JsonObject, type Operation } from "./operations.ts";
import { InputReader } from "./operations_input.ts";
import { allAccounts, findUser } from "./users_find.ts";

/** Rows of a list when nobody says, and the most. */
const LIST_DEFAULT = 1000;
const LIST_MAX = 100_000;
/** The shortest life of an invitation. */
const TTL_MS_MIN = 60_000;

/** All accounts, in order of their names. */
export const userList: Operation = {
  name: "user list",
  whenStopped: "reads",
  audited: false,
  async run(context, input) {
    const read = new InputReader(input);
    const beginning = (read.text("beginning") ?? "").toLowerCase();
    const limit = read.number("limit", { min: 1, max: LIST_MAX, otherwise: LIST_DEFAULT });
    read.end();
    const users: JsonObject[] = [];
    let more = false;
    for await (const account of allAccounts(await context.store())) {
      if (!account.userName.startsWith(beginning)) continue;
      more = users.length === limit;
      if (more) break;
      users.push({ ...account });
    }
    return { users, more };
  },
};

/** One account with its devices. */
export const userShow: Operation = {
  name: "user show",
  whenStopped: "reads",
  audited: false,
  async run(context, input) {
    const store = await context.store();
    const account = await findUser(store, nameOf(input));
    const { accountId, userName, createdAt, enabled, credential } = account;
    const setups = await store.opaqueSetups();
    const setup = setups.find(({ setupId }) => setupId === credential.setupId);
    const blocks = await store.listBlocks(accountId);
    const devices = await store.listDevices(accountId);
    return {
      userName,
      accountId,
      createdAt,
      enabled,
      setupId: credential.setupId,
      canLogIn: enabled && setup?.retiredAt === null,
      blocked: blocks.length,
      devices: await Promise.all(devices.map((device) => deviceRow(context, device))),
    };
  },
};

/** A disabled account cannot log in, send or receive; what waits for it goes on waiting. */
export const userDisable: Operation = {
  name: "user disable",
  whenStopped: "changes",
  audited: true,
  run: (context, input) => setEnabled(context, { input, enabled: false }),
};

/** Undoes a disable. */
export const userEnable: Operation = {
  name: "user enable",
  whenStopped: "changes",
  audited: true,
  run: (context, input) => setEnabled(context, { input, enabled: true }),
};

async function setEnabled(
  context: AdminContext,
  { input, enabled }: { input: JsonObject; enabled: boolean },
): Promise<JsonObject> {
  const { account, dryRun } = await namedUser(context, input);
  const { accountId, userName } = account;
  const changes = account.enabled !== enabled;
  if (!dryRun && changes) {
    await (await context.store()).setAccountEnabled(accountId, enabled);
    if (!enabled) context.server?.accounts.sessionsEnded({ accountId });
  }
  return { userName, accountId, enabled: dryRun ? account.enabled : enabled, changes, dryRun };
}

/** Deletes an account with everything it has; its name stays reserved for ever. */
export const userDelete: Operation = {
  name: "user delete",
  whenStopped: "changes",
  audited: true,
  async run(context, input) {
    const { account, dryRun } = await namedUser(context, input);
    const { accountId, userName } = account;
    const store = await context.store();
    const devices = await store.listDevices(accountId);
    if (!dryRun) {
      const deleted = await store.deleteAccount(accountId, context.clock.now());
      context.server?.accounts.sessionsEnded({ accountId });
      await removeBlobs(context, deleted?.orphanedBlobs ?? []);
    }
    return { userName, accountId, devices: devices.length, deleted: !dryRun, dryRun };
  },
};

/** Blobs that nobody refers to any more. What a crash leaves is removed by the next start. */
async function removeBlobs({ server, settings }: AdminContext, hashes: readonly BlobHash[]): Promise<void> {
  if (server) return await server.accounts.removeBlobs(hashes);
  const files = await BlobFiles.open(settings.dataDir);
  for (const hash of hashes) await files.delete(hash);
}

/** An invitation for somebody new, whatever users may do. */
export const userInvite: Operation = {
  name: "user invite",
  whenStopped: "changes",
  audited: true,
  async run(context, input) {
    const read = new InputReader(input);
    const ttlMs = readTtl(context, read);
    read.end();
    const { code, expiresAt } = await invite(context, { forAccount: null, ttlMs });
    return { invitation: code, expiresAt };
  },
};

/**
 * An invitation to register the same account again, for who has forgotten the password. Nothing changes until it is
 * used: then the account's devices and its key go, and contacts see the change.
 */
export const userReset: Operation = {
  name: "user reset",
  whenStopped: "changes",
  audited: true,
  async run(context, input) {
    const read = new InputReader(input);
    const name = read.requiredText("user");
    const dryRun = read.flag("dryRun");
    const ttlMs = readTtl(context, read);
    read.end();
    const { accountId, userName, enabled } = await findUser(await context.store(), name);
    const about = { userName, accountId, enabled, dryRun };
    if (dryRun) return { ...about, invitation: null, expiresAt: context.clock.now() + ttlMs };
    const { code, expiresAt } = await invite(context, { forAccount: accountId, ttlMs });
    return { ...about, invitation: code, expiresAt };
  },
};

async function invite(
  context: AdminContext,
  { forAccount, ttlMs }: { forAccount: AccountId | null; ttlMs: number },
): Promise<{ code: string; expiresAt: number }> {
  const now = context.clock.now();
  const code = makeInvitation();
  const store = await context.store();
  const made = await store.createInvitation({
    sha256: await hashInvitation(code),
    createdBy: null,
    forAccount,
    expiresAt: now + ttlMs,
    maxOpen: Number.MAX_SAFE_INTEGER,
    now,
  });
  if (!made) throw new AdminError("The store made no invitation: try again");
  return { code, expiresAt: now + ttlMs };
}

/** Milliseconds that an invitation lives; the configured ones by default and at most. */
function readTtl({ settings }: AdminContext, read: InputReader): number {
  const max = settings.limits.invitationTtlMs;
  return read.number("ttlMs", { min: Math.min(TTL_MS_MIN, max), max, otherwise: max });
}

function nameOf(input: JsonObject): string {
  const read = new InputReader(input);
  const name = read.requiredText("user");
  read.end();
  return name;
}

/** The account that an operation is about, and whether it may change it. */
async function namedUser(
  context: AdminContext,
  input: JsonObject,
): Promise<{ account: Account; dryRun: boolean }> {
  const read = new InputReader(input);
  const name = read.requiredText("user");
  const dryRun = read.flag("dryRun");
  read.end();
  return { account: await findUser(await context.store(), name), dryRun };
}

/** A device as lists show it, with what waits for it. */
export async function deviceRow(context: AdminContext, device: Device): Promise<JsonObject> {
  const { deviceId, name, createdAt, lastSeenAt, accountSignature } = device;
  const [found] = await (await context.store()).findDevices({ prefix: deviceId, limit: 1 });
  return {
    deviceId,
    name,
    signed: accountSignature !== null,
    createdAt,
    lastSeenAt,
    entries: found?.entries ?? 0,
    bytes: found?.bytes ?? 0,
  };
}
