/** The disk under the data folder: space, speed of fsync, kind of file system, and whether backups share it. */
import { statfs } from "node:fs/promises";
import { join } from "node:path";
import { exists } from "../base/files.ts";
import { type DoctorCheck, type DoctorContext, fail, ok, showBytes, warn } from "./doctor_check.ts";

const GIB = 1 << 30;
/** Measured writes, of about a small transaction each. */
const SYNC_COUNT = 21;
const SYNC_BYTES = 4096;
/** Every acknowledged message waits for one: beyond these a burst is felt, then everything. */
const SYNC_MS_WARN = 20;
const SYNC_MS_FAIL = 250;

/** By the magic number of statfs(2). */
const FILE_SYSTEMS = new Map<number, { readonly name: string; readonly problem?: string }>([
  [0xef53, { name: "ext4" }],
  [0x58465342, { name: "XFS" }],
  [0x9123683e, { name: "Btrfs" }],
  [0x2fc12fc1, { name: "ZFS" }],
  [0xf2f52010, { name: "F2FS" }],
  [0x794c7630, { name: "overlay" }],
  [0x6969, { name: "NFS", problem: "locks and syncs of a network file system are not to be relied upon" }],
  [0xff534d42, {
    name: "CIFS",
    problem: "locks and syncs of a network file system are not to be relied upon",
  }],
  [0xfe534d42, {
    name: "SMB2",
    problem: "locks and syncs of a network file system are not to be relied upon",
  }],
  [0x01021994, { name: "tmpfs", problem: "it is memory: everything is gone after a restart of the machine" }],
  [0x858458f6, { name: "ramfs", problem: "it is memory: everything is gone after a restart of the machine" }],
]);

/** Space, speed, kind, backups. */
export async function diskGroup(context: DoctorContext): Promise<DoctorCheck[]> {
  const { dataDir } = context.settings;
  if (!await exists(dataDir)) return [];
  return [
    await spaceCheck(context),
    kindCheck((await statfs(dataDir)).type),
    await speedCheck(dataDir),
    ...await backupDiskChecks(dataDir),
  ];
}

async function spaceCheck({ settings }: DoctorContext): Promise<DoctorCheck> {
  const name = "disk space";
  const { bavail, bsize, blocks } = await statfs(settings.dataDir);
  const free = bavail * bsize;
  const total = blocks * bsize;
  const store = await storeBytes(settings.dataDir);
  const found = `${showBytes(free)} free of ${showBytes(total)}`;
  const remedy = "Free some space, or give the data folder a larger disk";
  if (free < settings.diskReserveBytes) {
    return fail(name, `${found}, less than disk_reserve_bytes: nothing new is stored`, remedy);
  }
  if (free < store) {
    return warn(name, `${found}: not enough to encrypt the store anew (${showBytes(store)})`, remedy);
  }
  return free < GIB && free < total / 10 ? warn(name, found, remedy) : ok(name, found);
}

function kindCheck(type: number): DoctorCheck {
  const known = FILE_SYSTEMS.get(type);
  if (!known?.problem) return ok("file system", known?.name ?? `type 0x${type.toString(16)}`);
  return warn("file system", `${known.name}: ${known.problem}`, "Put the data folder on a local disk");
}

/** Median of some small writes with fsync, as each transaction of the store has one. */
async function speedCheck(dataDir: string): Promise<DoctorCheck> {
  const name = "disk speed";
  const ms = await measureSync(dataDir);
  const found = `an fsync takes ${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
  const remedy = "Put the data folder on an SSD, and nothing else that syncs much beside it";
  if (ms >= SYNC_MS_FAIL) return fail(name, found, remedy);
  return ms >= SYNC_MS_WARN ? warn(name, found, remedy) : ok(name, found);
}

/** Milliseconds of a write with fsync in `folder`: the median. */
export async function measureSync(folder: string): Promise<number> {
  const path = join(folder, `.doctor-${crypto.randomUUID()}`);
  const bytes = new Uint8Array(SYNC_BYTES);
  const times: number[] = [];
  try {
    using file = await Deno.open(path, { write: true, createNew: true, mode: 0o600 });
    for (let i = 0; i < SYNC_COUNT; i++) {
      const start = performance.now();
      await file.write(bytes);
      await file.syncData();
      times.push(performance.now() - start);
    }
  } finally {
    await Deno.remove(path).catch(() => {});
  }
  return times.sort((a, b) => a - b)[SYNC_COUNT >> 1]!;
}

async function backupDiskChecks(dataDir: string): Promise<DoctorCheck[]> {
  const backups = join(dataDir, "backups");
  const [own, other] = [await Deno.stat(dataDir), await Deno.stat(backups).catch(() => null)];
  if (!other) return [];
  if (own.dev !== other.dev) return [ok("backups' disk", `${backups} is on another disk`)];
  return [
    warn(
      "backups' disk",
      `${backups} is on the disk of the data: it goes with it`,
      "Copy backups to another machine, or mount another disk there",
    ),
  ];
}

/** Bytes of the database or the journal. */
export async function storeBytes(dataDir: string): Promise<number> {
  let sum = 0;
  for (const name of ["qpq.db", "qpq.db-wal"]) sum += await fileBytes(join(dataDir, name));
  try {
    for await (const { name } of Deno.readDir(join(dataDir, "journal"))) {
      sum += await fileBytes(join(dataDir, "journal", name));
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return sum;
}

async function fileBytes(path: string): Promise<number> {
  return await Deno.stat(path).then(({ size }) => size, () => 0);
}
