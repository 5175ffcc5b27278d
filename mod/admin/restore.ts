/**
 * `backup restore`: a backup becomes a data folder again. It is unpacked and checked beside its place, what happened
 * since is replayed, the store gets its new identity, and only then it takes its place, in a few renames. A mark
 * (store/restore_mark.ts) lies in the folder during those: a crash among them leaves a folder that no server opens,
 * and another restore settles it. What was there before is moved aside, never removed.
 */
import { join } from "node:path";
import { hex } from "../base/bytes.ts";
import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import { exists } from "../base/files.ts";
import type { DeviceId } from "../base/ids.ts";
import { lockFolder } from "../store/folder_lock.ts";
import { REVOCATIONS_LOG } from "../store/revocation_log.ts";
import type { ServerNotice } from "../store/store.ts";
import { AuditLog } from "./audit.ts";
import { isPlainFolder, makeFolder, removeAll, syncFolders } from "./backup_files.ts";
import { type Manifest, proveManifest } from "./backup_manifest.ts";
import { unpackBackup } from "./backup_unpack.ts";
import type { Progress } from "./control.ts";
import { AdminError } from "./operations_error.ts";
import { gatherRevocations, type Replayed, replayRevocations } from "./restore_revocations.ts";
import { swapIntoPlace, theStoreIn } from "./restore_swap.ts";

/** What a folder may hold and still count as empty: what operators put there before a restore. */
const NO_MATTER = new Set(["secrets", "tls", "backups", "lost+found", "lock"]);
const STAGING = ".restoring-";

/** What to restore. */
export interface RestoreOptions {
  readonly folder: string;
  /** The data folder that is to be. */
  readonly into: string;
  readonly keys: readonly string[];
  /** Text of an age identity file. */
  readonly identity: string | null;
  /** Into a folder that is not empty: what is there is moved aside. */
  readonly force: boolean;
  /** Restore although blobs are damaged or missing in the backup, without these. */
  readonly withoutDamagedBlobs: boolean;
  /** A log of revocations beside the one that the folder has. */
  readonly revocations: string | null;
  /** For the other devices of an account when one is revoked again. */
  readonly deviceRevokedNotice: (device: DeviceId) => ServerNotice;
  readonly clock: Clock;
  /** Awaited after each durable change. */
  readonly step: (name: string) => Promise<void>;
}

/** What was restored. */
export interface Restored {
  readonly manifest: Manifest;
  readonly into: string;
  /** Of the restored store, hex. */
  readonly incarnation: string;
  readonly blobs: number;
  /** Blobs that the restored store refers to and that are lost. */
  readonly blobsLost: readonly string[];
  readonly blobsMissing: number;
  readonly replayed: Replayed;
  /** Where what was there before is now; null when there was nothing. */
  readonly before: string | null;
}

/** What a restore would do. */
export interface RestorePlan {
  readonly manifest: Manifest;
  /** What would be moved aside. */
  readonly replaces: readonly string[];
}

/** Looks whether a backup could be restored, and changes nothing. Throws AdminError or StoreOpenError. */
export async function planRestore(options: RestoreOptions): Promise<RestorePlan> {
  const { manifest } = await proveManifest(options.folder, options.keys);
  if (!await isPlainFolder(options.into)) return { manifest, replaces: [] };
  await using _target = await Target.take(options.into);
  await refuseUnlessEmpty(options);
  return { manifest, replaces: await theStoreIn(options.into) };
}

/** Restores a backup. Throws AdminError or StoreOpenError; then everything is as it was. */
export async function restoreBackup(options: RestoreOptions, progress: Progress): Promise<Restored> {
  const { folder, into, clock } = options;
  const { manifest, key } = await proveManifest(folder, options.keys);
  await using target = await Target.take(into);
  await refuseUnlessEmpty(options);
  const former = (await theStoreIn(into)).some((name) => name !== "blobs");
  const staging = await target.stagingFolder();
  const unpack = { folder, manifest, key, identity: options.identity, into: staging, blobs: "put" } as const;
  const unpacked = await unpackBackup(unpack, progress, async (store) => {
    const gathered = await gatherRevocations({
      fromBackup: join(staging, REVOCATIONS_LOG),
      ofFolder: join(into, REVOCATIONS_LOG),
      given: options.revocations,
      formerStore: former,
    });
    const { deviceRevokedNotice } = options;
    const since = manifest.createdAt;
    const replayed = await replayRevocations(store, gathered, { since, deviceRevokedNotice });
    await gathered.write(join(staging, REVOCATIONS_LOG));
    return { replayed, incarnation: hex(await store.markRestored()) };
  }).catch((cause) => {
    if (cause instanceof AdminError) throw cause;
    throw new AdminError(`Nothing was restored: ${messageOf(cause)}`, { cause });
  });
  const { blobs, blobProblems, blobsMissing, result } = unpacked;
  if (blobProblems.length > 0 && !options.withoutDamagedBlobs) {
    throw new AdminError(
      `Nothing was restored, as blobs of the backup are damaged: ${
        blobProblems.slice(0, 5).join("; ")
      }. Use ` +
        "another backup, or restore the rest with --without-damaged-blobs",
    );
  }
  await Deno.remove(join(staging, "lock"));
  await syncFolders(staging);
  await options.step("unpacked");
  const input = { path: folder, to: into, force: options.force };
  const subject = { operation: "backup restore", input, via: "stopped" } as const;
  const before = await new AuditLog(into, clock).record(
    subject,
    () => swapIntoPlace({ staging, into, now: clock.now(), step: options.step }),
  );
  await target.keep();
  return { manifest, into, ...result, blobs, blobsLost: blobProblems, blobsMissing, before };
}

async function refuseUnlessEmpty({ into, force }: RestoreOptions): Promise<void> {
  const names: string[] = [];
  for await (const { name } of Deno.readDir(into)) {
    if (!NO_MATTER.has(name) && !name.startsWith(STAGING)) names.push(name);
  }
  if (names.length === 0 || force) return;
  throw new AdminError(
    `${into} is not empty: it holds ${
      names.sort().slice(0, 5).join(", ")
    }. Restore into an empty folder, or with ` +
      "--force, which moves the store and the blobs that are there aside",
  );
}

/** The folder to restore into, held so that no server starts in it; as it was before unless it is kept. */
class Target implements AsyncDisposable {
  readonly #path: string;
  readonly #made: boolean;
  readonly #hadLock: boolean;
  readonly #lock: { release(): void };
  #kept = false;

  private constructor(path: string, was: { made: boolean; hadLock: boolean }, lock: { release(): void }) {
    this.#path = path;
    this.#made = was.made;
    this.#hadLock = was.hadLock;
    this.#lock = lock;
  }

  /** Throws StoreOpenError `inUse` when a server runs on it. */
  static async take(path: string): Promise<Target> {
    const made = !await isPlainFolder(path);
    if (made) await makeFolder(path);
    const hadLock = await exists(join(path, "lock"));
    try {
      return new Target(path, { made, hadLock }, await lockFolder(path));
    } catch (error) {
      if (made) await removeAll(path);
      throw error;
    }
  }

  /** A folder beside what is there; those of earlier restores are removed. */
  async stagingFolder(): Promise<string> {
    await this.#removeStaging();
    const path = join(this.#path, STAGING + crypto.randomUUID().slice(0, 8));
    await makeFolder(path);
    return path;
  }

  /** What is in the folder now is to stay. */
  async keep(): Promise<void> {
    await this.#removeStaging();
    this.#kept = true;
  }

  async #removeStaging(): Promise<void> {
    for await (const { name } of Deno.readDir(this.#path)) {
      if (name.startsWith(STAGING)) await removeAll(join(this.#path, name));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#lock.release();
    if (this.#kept) return;
    if (this.#made) return await removeAll(this.#path);
    await this.#removeStaging();
    if (!this.#hadLock) await Deno.remove(join(this.#path, "lock"));
  }
}
