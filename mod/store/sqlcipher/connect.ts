/** What every connection to the database is given: key, settings, and the schema of this version. */
import { parseStoreKey } from "../key.ts";
import { Connection } from "./connection.ts";
import { MIGRATIONS } from "./schema.ts";

/** `EXCLUSIVE`: nobody else may open the file. `NORMAL`: a second connection may read it. */
export type Locking = "EXCLUSIVE" | "NORMAL";

/** A checkpoint is made when the WAL has so many pages (16 MiB): pages written again and again are moved once. */
export const CHECKPOINT_PAGES = 4096;

/** The text of a key in SQL. */
export function keyLiteral(key: string): string {
  const parsed = parseStoreKey(key);
  if (parsed.kind === "raw") return `"x'${parsed.key.toHex()}'"`;
  return `'${parsed.kind === "passphrase" ? parsed.passphrase.replaceAll("'", "''") : ""}'`;
}

/** A connection that has been given its key, and nothing is known about. */
export function connect(path: string, key: string, locking: Locking = "EXCLUSIVE"): Connection {
  const connection = new Connection(path);
  try {
    // Messages about keys that do not fit would go to stderr.
    connection.exec("PRAGMA cipher_log_level = NONE");
    if (key !== "") connection.exec(`PRAGMA key = ${keyLiteral(key)}`);
    // EXCLUSIVE: one server for each store, and no shared-memory file beside it.
    connection.exec(`PRAGMA locking_mode = ${locking}`);
    return connection;
  } catch (error) {
    connection.close();
    throw error;
  }
}

/** Sets how the database is to be kept, and proves that it can be written. */
export function configure(connection: Connection): void {
  for (const pragma of SETTINGS) connection.exec(`PRAGMA ${pragma}`);
  connection.begin();
  connection.rollback();
}

const SETTINGS: readonly string[] = [
  "journal_mode = WAL",
  // fsync of the WAL at each COMMIT: the reply to a client is sent after.
  "synchronous = FULL",
  // Nothing reads beside us, so a checkpoint always completes and the WAL starts over; a single large transaction is
  // all that can make it longer for a while.
  `wal_autocheckpoint = ${CHECKPOINT_PAGES}`,
  "journal_size_limit = 67108864",
  "cache_size = -65536",
  "temp_store = MEMORY",
  "mmap_size = 0",
  // Overwrites what was deleted on pages that are written anyway. ON would write every freed page once more, and
  // what it would still hide is only readable with the DB key, and then ciphertext of MLS.
  "secure_delete = FAST",
  "trusted_schema = OFF",
  "foreign_keys = OFF",
  // ON locks and wipes every allocation of SQLite, which takes a third of the speed (49k to 33k enqueues/s
  // measured); the key is in this process' memory all the same.
  "cipher_memory_security = OFF",
];

/** Brings the schema to this version, or leaves it as it is. */
export function migrate(connection: Connection): void {
  const version = Number(connection.value("PRAGMA user_version"));
  if (version === MIGRATIONS.length) return;
  connection.begin();
  try {
    for (const migration of MIGRATIONS.slice(version)) connection.exec(migration);
    connection.exec(`PRAGMA user_version = ${MIGRATIONS.length}`);
    connection.commit();
  } catch (error) {
    connection.rollback();
    throw error;
  }
}
