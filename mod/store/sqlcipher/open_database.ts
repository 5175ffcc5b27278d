/**
 * Opens `qpq.db` or makes it. Everything is looked at before anything is changed, and a new database is made
 * under another name and renamed when it is complete: what stands at `qpq.db` is a whole store or a damaged one.
 */
import { join } from "node:path";
import { messageOf } from "../../base/errors.ts";
import { isNoSpace } from "../folder_lock.ts";
import { parseStoreKey } from "../key.ts";
import { type OpenOptions, StoreOpenError, type StoreOpenProblem } from "../store.ts";
import { configure, connect, type Locking, migrate } from "./connect.ts";
import { type Connection, isSqliteFull, sqliteCode } from "./connection.ts";
import { createDatabase, exists } from "./create_database.ts";
import { fileIsOfKey, PAGE_BYTES } from "./page_key.ts";
import { APPLICATION_ID, MIGRATIONS } from "./schema.ts";
import { findWalDamage } from "./wal_check.ts";

/** Name of the database in the data folder. */
export const DATABASE_NAME = "qpq.db";

const RESTORE = "Restore a backup into an empty data folder (qpq-server backup restore)";

/** An open, migrated database, where it is, the key that fitted, and how to open it again. */
export interface OpenedDatabase {
  readonly connection: Connection;
  readonly path: string;
  readonly key: string;
  readonly reopen: () => Connection;
}

/** Opens the database with the first of the keys that fits; throws StoreOpenError. */
export function openDatabase(options: OpenOptions): OpenedDatabase {
  const path = join(options.dataDir, DATABASE_NAME);
  try {
    checkWritable(options.dataDir);
    if (!exists(path)) createDatabase(path, options);
    checkFile(path);
    checkWal(`${path}-wal`);
    const { connection, key } = openWithKeys(path, options.keys);
    try {
      checkSchema(connection, path);
      configure(connection);
      migrate(connection);
      emptyWal(connection);
    } catch (error) {
      connection.close();
      throw error;
    }
    return { connection, path, key, reopen: () => reopenDatabase({ path, key, locking: "EXCLUSIVE" }) };
  } catch (error) {
    throw asOpenError(path, error);
  }
}

/** Opens the database again, after the connection was lost or to lock it otherwise. */
export function reopenDatabase({ path, key, locking }: {
  path: string;
  key: string;
  locking: Locking;
}): Connection {
  const connection = connect(path, key, locking);
  try {
    configure(connection);
    return connection;
  } catch (error) {
    connection.close();
    throw error;
  }
}

/** SQLite would open a database in a read-only folder and fail at the first write. */
function checkWritable(dataDir: string): void {
  const path = join(dataDir, `.writable-${crypto.randomUUID()}`);
  try {
    Deno.openSync(path, { write: true, createNew: true }).close();
    Deno.removeSync(path);
  } catch (error) {
    // A store on a full disk can still be read, and made smaller.
    if (isNoSpace(error)) return;
    throw error;
  }
}

function checkFile(path: string): void {
  const { size, isFile } = Deno.statSync(path);
  if (!isFile) {
    throw new StoreOpenError("damaged", path, `Cannot open ${path} as it is not a file: ${RESTORE}`);
  }
  Deno.openSync(path, { read: true, write: true }).close();
  if (size >= PAGE_BYTES && size % PAGE_BYTES === 0) return;
  throw new StoreOpenError(
    "damaged",
    path,
    `Cannot open ${path} as it is damaged or not a store: its size of ${size} bytes is not a multiple of ` +
      `${PAGE_BYTES}. ${RESTORE}`,
  );
}

function checkWal(path: string): void {
  const damage = findWalDamage(path);
  if (damage === null) return;
  throw new StoreOpenError(
    "damaged",
    path,
    `Cannot open the store as ${path} is damaged at offset ${damage}: what was last written would be lost. ${RESTORE}`,
  );
}

/** What a stop has left goes into the main file: see wal_check.ts. */
function emptyWal(connection: Connection): void {
  try {
    connection.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  } catch (error) {
    // It goes on in the log, and a store on a full disk can still be read, and made smaller.
    if (!isSqliteFull(error)) throw error;
  }
}

function openWithKeys(path: string, keys: readonly string[]): { connection: Connection; key: string } {
  const key = keyOf(path, keys);
  const connection = connect(path, key);
  try {
    connection.value("SELECT count(*) FROM sqlite_schema WHERE rowid = 1");
    return { connection, key };
  } catch (error) {
    connection.close();
    if (sqliteCode(error) !== "SQLITE_NOTADB") throw error;
    throw new StoreOpenError(
      "damaged",
      path,
      `Cannot open ${path} as its first page is damaged; the DB key is right. ${RESTORE}`,
      { cause: error },
    );
  }
}

/** The first key that fits. */
function keyOf(path: string, keys: readonly string[]): string {
  const plain = isPlaintext(path);
  const key = keys.find((key) => key === "" ? plain : !plain && fileIsOfKey(path, parseStoreKey(key)));
  if (key !== undefined) return key;
  const why = plain
    ? "with a key as it is not encrypted: empty the DB key and set allow_plaintext_store"
    : `with any of the ${keys.length} DB keys given: either the key is wrong (put back the one it was made with, as ` +
      `db_key or db_key_file), or the file is damaged or not a store. ${RESTORE}`;
  throw new StoreOpenError("wrongKey", path, `Cannot open ${path} ${why}`);
}

function isPlaintext(path: string): boolean {
  const file = Deno.openSync(path);
  try {
    const head = new Uint8Array(16);
    file.readSync(head);
    return new TextDecoder().decode(head) === "SQLite format 3\0";
  } finally {
    file.close();
  }
}

function checkSchema(connection: Connection, path: string): void {
  const version = Number(connection.value("PRAGMA user_version"));
  if (connection.value("PRAGMA application_id") !== APPLICATION_ID) {
    throw new StoreOpenError(
      "failed",
      path,
      `Cannot open ${path} as it is another program's database: name another data folder`,
    );
  }
  if (version > MIGRATIONS.length) {
    throw new StoreOpenError(
      "newerSchema",
      path,
      `Cannot open ${path} as a newer version of the server wrote it (schema ${version}, this one knows ` +
        `${MIGRATIONS.length}): run that version, or restore a backup made before the upgrade`,
    );
  }
  const pages = Number(connection.value("PRAGMA page_count"));
  const { size } = Deno.statSync(path);
  if (pages * PAGE_BYTES > size && !exists(`${path}-wal`)) {
    throw new StoreOpenError(
      "damaged",
      path,
      `Cannot open ${path} as it is damaged: ${size} bytes are left of ${pages * PAGE_BYTES}. ${RESTORE}`,
    );
  }
}

/** What an error while opening is to the operator: the file, and what to do. */
export function asOpenError(path: string, error: unknown): StoreOpenError {
  if (error instanceof StoreOpenError) return error;
  const problem = problemOf(error);
  return new StoreOpenError(problem, path, `Cannot open ${path}${REMEDIES[problem]} (${messageOf(error)})`, {
    cause: error,
  });
}

function problemOf(error: unknown): keyof typeof REMEDIES {
  if (isNoSpace(error) || isSqliteFull(error)) return "diskFull";
  if (error instanceof Deno.errors.PermissionDenied || error instanceof Deno.errors.NotCapable) {
    return "readOnly";
  }
  if (error instanceof Error && "code" in error && error.code === "EROFS") return "readOnly";
  const code = sqliteCode(error) ?? "";
  if (/^SQLITE_(READONLY|PERM|CANTOPEN)/.test(code)) return "readOnly";
  if (/^SQLITE_(CORRUPT|NOTADB)/.test(code)) return "damaged";
  if (/^SQLITE_(BUSY|LOCKED)/.test(code)) return "inUse";
  return "failed";
}

const REMEDIES = {
  diskFull: " as the disk is full: free some space",
  readOnly: " as it or its folder cannot be written: make both writable for the user that runs the server",
  damaged: ` as it is damaged. ${RESTORE}`,
  inUse: " as another program has it open: stop that first",
  failed: "",
} as const satisfies Partial<Record<StoreOpenProblem, string>>;
