/** The store: whether it opens, whether it is sound, which key it is under, and what operations have left behind. */
import { join } from "node:path";
import { newestSetups } from "../auth/setups.ts";
import { messageOf } from "../base/errors.ts";
import { exists } from "../base/files.ts";
import { StoreBusyError } from "../store/admin_store.ts";
import type { Store } from "../store/store.ts";
import { type DoctorCheck, type DoctorContext, fail, ok, showAge, showBytes, warn } from "./doctor_check.ts";
import { storeBytes } from "./doctor_disk.ts";

const RESTORE =
  "Restore the last good backup: `qpq-server backup restore`, ops/incident-response.md tells how";
/** Names that changes of the key leave beside the store, and temporary files of writes that a crash cut off. */
const LEFTOVER =
  /^(qpq\.db|journal)\.(checking|rekeying|rekeyed|old-\d+)(-wal|-shm|-journal)?$|^db-key\.former$/;
const TEMPORARY = /\.[0-9a-f]{8}\.tmp$/;
/** A temporary file that is younger may be in use. */
const TEMPORARY_MS = 3_600_000;
/** Accounts that have not logged in for so long hold an old setup up. */
const SETUP_MS = 180 * 86_400_000;
const PROBLEMS_SHOWN = 3;

/** Database, key, OPAQUE setups, leftovers. */
export async function storeGroup(context: DoctorContext): Promise<DoctorCheck[]> {
  const { dataDir } = context.settings;
  if (!await exists(dataDir)) return [];
  return [...await databaseChecks(context), await leftoversCheck(context)];
}

async function databaseChecks(context: DoctorContext): Promise<DoctorCheck[]> {
  const { admin, settings, quick } = context;
  const name = "database";
  const path = join(settings.dataDir, settings.storeBackend === "file" ? "journal" : "qpq.db");
  if (!await exists(path)) return [warn(name, `there is none yet (${path})`, "The first start makes it")];
  const size = showBytes(await storeBytes(settings.dataDir));
  // Opening the store of a stopped server would bring an older schema up to date.
  if (quick && !admin.server) return [ok(name, `${path}, ${size}; not opened (--quick)`)];
  let store: Store;
  try {
    store = await admin.store();
  } catch (error) {
    return [fail(name, messageOf(error), "The message says what to do")];
  }
  const found = `${store.backend}, ${size}, schema ${store.schemaVersion}`;
  return [
    quick ? ok(name, `${found}; not read through (--quick)`) : await integrityCheck(context, store, found),
    ...await keyChecks(context),
    await setupsCheck(context, store),
  ];
}

async function integrityCheck(
  { progress, settings }: DoctorContext,
  store: Store,
  found: string,
): Promise<DoctorCheck> {
  const name = "database";
  try {
    const problems = await store.checkIntegrity(progress);
    if (problems.length === 0) return ok(name, `${found}; all of it is sound`);
    const shown = problems.slice(0, PROBLEMS_SHOWN).join("; ");
    const more = problems.length > PROBLEMS_SHOWN ? `; and ${problems.length - PROBLEMS_SHOWN} more` : "";
    return fail(name, `damaged: ${shown}${more}`, RESTORE);
  } catch (error) {
    if (error instanceof StoreBusyError) {
      return warn(name, `${found}; not read through: ${error.message}`, "Run doctor again later");
    }
    const remedy = `Look at the disk of ${settings.dataDir} and its free space, then run doctor again`;
    return fail(name, `it could not be read through: ${messageOf(error)}`, remedy);
  }
}

/** A rotation that was interrupted, or a new first line that waits for its turn. */
async function keyChecks({ admin, settings }: DoctorContext): Promise<DoctorCheck[]> {
  const name = "key in use";
  const wanted = settings.dbKey?.lines[0];
  if (wanted === undefined) return [];
  if (await admin.storeKey() === wanted) return [ok(name, "the first line of db_key")];
  return [
    warn(
      name,
      "the database is still under a later line of db_key: a rotation is not finished",
      "qpq-server rotate db-key, or a restart, encrypts it under the first line",
    ),
  ];
}

async function setupsCheck({ admin }: DoctorContext, store: Store): Promise<DoctorCheck> {
  const name = "OPAQUE setups";
  const setups = (await store.opaqueSetups()).filter(({ retiredAt }) => retiredAt === null);
  const accounts = new Map((await store.accountsBySetup()).map((each) => [each.setupId, each.accounts]));
  const current = newestSetups(setups);
  const newest = setups.at(-1);
  const old = setups.filter(({ setupId }) => !current.has(setupId));
  if (!newest || old.length === 0) return ok(name, current.size > 1 ? "one of each suite" : "one");
  const waiting = old.map(({ setupId }) => `${accounts.get(setupId) ?? 0} under setup ${setupId}`).join(", ");
  const done = old.find(({ setupId }) => (accounts.get(setupId) ?? 0) === 0);
  if (done) {
    return warn(
      name,
      `no account is left under setup ${done.setupId}`,
      `qpq-server rotate opaque --retire ${done.setupId}`,
    );
  }
  const age = admin.clock.now() - newest.createdAt;
  if (age < SETUP_MS) return ok(name, `accounts migrate as they log in: ${waiting}`);
  return warn(
    name,
    `${waiting} have not logged in for ${showAge(age)}`,
    `qpq-server rotate opaque --retire ${
      old[0]!.setupId
    } --force locks them out and names them, for \`user reset\``,
  );
}

async function leftoversCheck({ admin, settings }: DoctorContext): Promise<DoctorCheck> {
  const name = "leftovers";
  const { dataDir } = settings;
  const found: string[] = [];
  for (const folder of [dataDir, join(dataDir, "secrets"), join(dataDir, "tls")]) {
    if (!await exists(folder)) continue;
    for await (const { name } of Deno.readDir(folder)) {
      const path = join(folder, name);
      if (LEFTOVER.test(name) || (TEMPORARY.test(name) && await isOld(path, admin.clock.now()))) {
        found.push(path);
      }
    }
  }
  if (found.length === 0) return ok(name, "none");
  return warn(
    name,
    `a conversion, or an operation that was interrupted, left ${found.join(", ")}`,
    "Start the server, which puts the store in order; when clients work, remove what is left: it holds data, maybe under an old key",
  );
}

async function isOld(path: string, now: number): Promise<boolean> {
  return await Deno.lstat(path).then(
    ({ mtime }) => now - (mtime?.getTime() ?? now) > TEMPORARY_MS,
    () => false,
  );
}
