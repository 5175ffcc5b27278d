/** `store convert`: everything that is stored goes into a store of the other kind, in the same data folder. */
import { join } from "node:path";
import { exists } from "../base/files.ts";
import { convertStore } from "../store/convert.ts";
import { DATA_PATHS, type StoreBackend } from "../store/open.ts";
import { putAside } from "../store/swap.ts";
import { type AdminContext, AdminError, type JsonObject, type Operation } from "./operations.ts";
import { InputReader } from "./operations_input.ts";
import { refuseWithoutSpace } from "./rotate_db_key_file.ts";

/** As many messages as the file store is made for. */
const FILE_ENTRIES_MAX = 100_000;

/** Into `file` or `sqlcipher`. Only for a stopped server: nothing may write meanwhile. */
export const storeConvert: Operation = {
  name: "store convert",
  whenStopped: "changes",
  audited: true,
  alone: "rotation",
  async run(context, input, progress) {
    const read = new InputReader(input);
    const to = backendOf(read.requiredText("to"));
    const dryRun = read.flag("dryRun");
    read.end();
    const { settings } = context;
    const from = settings.storeBackend;
    refuseImpossible(context, to);
    // Both are there only after a crash between the last two steps, and no server opened either since.
    const interrupted = await exists(pathOf(context, to)) && await exists(pathOf(context, from));
    if (interrupted && dryRun) {
      throw new AdminError(
        `An earlier conversion was interrupted and left ${
          pathOf(context, to)
        }: run this without --dry-run, which ` +
          `puts that aside and begins anew`,
      );
    }
    const setAside = interrupted ? await putAside(settings.dataDir, DATA_PATHS[to]) : null;
    const store = await context.store();
    const key = await context.storeKey();
    const { queueEntries, accounts } = await store.counts();
    if (to === "file" && queueEntries > FILE_ENTRIES_MAX) {
      throw new AdminError(
        `${queueEntries} messages wait, and the file store is made for ${FILE_ENTRIES_MAX}: wait until they are fetched`,
      );
    }
    await refuseWithoutSpace(settings.dataDir, 2 * await store.diskBytes());
    const base = { from, to, dryRun, accounts, entries: queueEntries };
    const notes = [
      `Set store_backend = "${to}" (QPQ_STORE_BACKEND) before the next start`,
      ...(setAside ? [`What an interrupted conversion had made is ${setAside}: remove it`] : []),
    ];
    if (dryRun) return { ...base, path: pathOf(context, to), old: null, notes };
    const target = { backend: to, dataDir: settings.dataDir, key };
    const { path, rows } = await convertStore({ from: store, to: target, onProgress: progress });
    await context.step("converted");
    await store.close();
    const old = await putAside(settings.dataDir, DATA_PATHS[from]);
    await context.step("put the old store aside");
    const total = Object.values(rows).reduce((sum, count) => sum + count, 0);
    return {
      ...base,
      path,
      old,
      rows: total,
      notes: [...notes, `The store of before is ${old}: remove it when clients work, it holds everything`],
    } satisfies JsonObject;
  },
};

function refuseImpossible({ server, settings }: AdminContext, to: StoreBackend): void {
  if (server) {
    throw new AdminError("A running server's store cannot be converted: stop the server, and run this again");
  }
  if (to === settings.storeBackend) throw new AdminError(`The store is ${to} already (store_backend)`);
}

function backendOf(text: string): StoreBackend {
  if (text === "file" || text === "sqlcipher") return text;
  throw new AdminError(`A store is \`file\` or \`sqlcipher\`, not ${text}`);
}

function pathOf({ settings }: AdminContext, backend: StoreBackend): string {
  return join(settings.dataDir, DATA_PATHS[backend]);
}
