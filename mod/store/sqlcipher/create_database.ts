/** Makes a new database. Nothing stands at its place before it is complete and on disk. */
import { dirname } from "node:path";
import { randomBytes } from "../../base/bytes.ts";
import { type OpenOptions, StoreOpenError } from "../store.ts";
import { configure, connect, migrate } from "./connect.ts";
import { PAGE_BYTES } from "./page_key.ts";
import { APPLICATION_ID } from "./schema.ts";

/** Makes the database beside `path`, and moves it there when it is complete. */
export function createDatabase(path: string, { keys, mustExist }: OpenOptions): void {
  if (mustExist) {
    throw new StoreOpenError(
      "failed",
      path,
      `Cannot open ${path} as there is no such file: check data_dir, or make a new store with qpq-server init`,
    );
  }
  if (exists(`${path}-wal`)) {
    throw new StoreOpenError(
      "damaged",
      path,
      `Cannot make ${path} as ${path}-wal of an older store is there: put that store's database back, or ` +
        `move the leftover file away`,
    );
  }
  const key = keys[0];
  if (key === undefined) throw new RangeError("A store needs at least one key");
  const draft = `${path}.new`;
  removeDraft(draft);
  try {
    createDraft(draft, key);
    Deno.renameSync(draft, path);
    syncFolderOf(path);
  } catch (error) {
    removeDraft(draft);
    throw error;
  }
}

function createDraft(draft: string, key: string): void {
  // SQLite gives its WAL the mode of the database.
  Deno.openSync(draft, { write: true, createNew: true, mode: 0o600 }).close();
  const connection = connect(draft, key);
  try {
    connection.exec(`PRAGMA page_size = ${PAGE_BYTES}; PRAGMA application_id = ${APPLICATION_ID}`);
    configure(connection);
    migrate(connection);
    connection.prepare("INSERT INTO store (id, incarnation, realm_id) VALUES (1, ?, ?)")
      .run(randomBytes(16), randomBytes(16).toHex());
    connection.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  } finally {
    connection.close();
  }
}

function removeDraft(draft: string): void {
  for (const suffix of ["", "-wal", "-journal"]) if (exists(draft + suffix)) Deno.removeSync(draft + suffix);
}

function syncFolderOf(path: string): void {
  if (Deno.build.os === "windows") return; // Folders cannot be opened there; NTFS journals the rename.
  const folder = Deno.openSync(dirname(path));
  try {
    folder.syncDataSync();
  } finally {
    folder.close();
  }
}

/** Is there a file? */
export function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
