/**
 * `revocations.log` in the data folder: what was taken away, so that restoring an older backup does not give it back.
 * Append-only, mode 0600, one JSON object a line, ids only. A line is on disk before the verb that it is about
 * answers; a verb is in the store before its line is written. Enabling is there too: the last word counts.
 */
import { join } from "node:path";
import { messageOf } from "../base/errors.ts";
import { keepOwner, openPlainFile } from "../base/files.ts";
import type { AccountId, DeviceId } from "../base/ids.ts";
import { logger } from "../base/log.ts";
import type { Store } from "./store.ts";

const log = logger("store");

/** Name of the log. */
export const REVOCATIONS_LOG = "revocations.log";

/** One line. */
export type Revocation =
  & {
    /** Unix ms. */
    readonly at: number;
    readonly account: AccountId;
  }
  & (
    | { readonly kind: "deviceRevoked"; readonly device: DeviceId }
    /** Registered again: whatever devices it had are gone. */
    | { readonly kind: "accountDeleted" | "accountDisabled" | "accountEnabled" | "accountReset" }
  );

/** Has the store's verbs write the log of `dataDir`. */
export function logRevocations(store: Store, dataDir: string): Store {
  const path = join(dataDir, REVOCATIONS_LOG);
  const { revokeDevice, deleteAccount, setAccountEnabled, createAccount } = store;
  store.revokeDevice = async (account, device, notice, now) => {
    const revoked = await revokeDevice.call(store, account, device, notice, now);
    if (revoked) await append(path, { at: now, kind: "deviceRevoked", account, device });
    return revoked;
  };
  store.deleteAccount = async (account, now) => {
    const deleted = await deleteAccount.call(store, account, now);
    if (deleted) await append(path, { at: now, kind: "accountDeleted", account });
    return deleted;
  };
  store.setAccountEnabled = async (account, enabled) => {
    const known = await setAccountEnabled.call(store, account, enabled);
    const kind = enabled ? "accountEnabled" : "accountDisabled";
    if (known) await append(path, { at: Date.now(), kind, account });
    return known;
  };
  store.createAccount = async (account) => {
    const created = await createAccount.call(store, account);
    // Another id than the one asked for: the invitation was one to register an account again.
    if (created.status === "created" && created.accountId !== account.accountId) {
      await append(path, { at: account.now, kind: "accountReset", account: created.accountId });
    }
    return created;
  };
  return store;
}

/** Lines of a log; those that a crash or a bad disk has damaged are only counted. */
export function parseRevocations(text: string): { revocations: Revocation[]; damagedLines: number } {
  const lines = text.split("\n").filter((line) => line !== "");
  const revocations = lines.map(parseLine).filter((found) => found !== null);
  return { revocations, damagedLines: lines.length - revocations.length };
}

/** Text of a log with these lines. */
export function revocationsText(revocations: readonly Revocation[]): string {
  return revocations.map((revocation) => JSON.stringify(revocation) + "\n").join("");
}

function parseLine(line: string): Revocation | null {
  try {
    const found = JSON.parse(line) as Partial<Revocation> | null;
    return found !== null && isRevocation(found) ? found : null;
  } catch {
    return null;
  }
}

const KINDS = ["deviceRevoked", "accountDeleted", "accountDisabled", "accountEnabled", "accountReset"];

function isRevocation(found: Partial<Revocation> & { device?: unknown }): found is Revocation {
  const isId = (value: unknown) => typeof value === "string" && /^[0-9a-f]{32}$/.test(value);
  return Number.isSafeInteger(found.at) && KINDS.includes(found.kind ?? "") && isId(found.account) &&
    (found.kind !== "deviceRevoked" || isId(found.device));
}

/** What was revoked stays revoked now, whatever becomes of its line: a failure is logged and nothing more. */
async function append(path: string, revocation: Revocation): Promise<void> {
  try {
    using file = await openPlainFile(path, { read: true, append: true, create: true, mode: 0o600 });
    await keepOwner(path);
    const bytes = new TextEncoder().encode(await lineBegin(file) + revocationsText([revocation]));
    // One write: lines of two verbs never mix.
    if (await file.write(bytes) !== bytes.length) throw new Error("only a part of the line could be written");
    await file.syncData();
  } catch (error) {
    log.error("{kind} is not in {path}: restoring an older backup would undo it ({reason})", {
      kind: revocation.kind,
      path,
      reason: messageOf(error),
    });
  }
}

/** What a crash has left of a line must not swallow the next one. */
async function lineBegin(file: Deno.FsFile): Promise<string> {
  if (await file.seek(0, Deno.SeekMode.End) === 0) return "";
  await file.seek(-1, Deno.SeekMode.End);
  const last = new Uint8Array(1);
  await file.read(last);
  return last[0] === 0x0a ? "" : "\n";
}
