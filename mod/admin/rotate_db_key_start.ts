/**
 * What a start does for the database key: a store that only a later line of db_key opens is encrypted under the first,
 * which finishes an interrupted rotation, or does what the operator asked for by writing that line.
 */
import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import { logger } from "../base/log.ts";
import type { Settings } from "../config/options.ts";
import type { Store } from "../store/store.ts";
import { tidyUp } from "./rotate_db_key.ts";
import { refuseWithoutSpace } from "./rotate_db_key_file.ts";
import { recordRotation } from "./rotate_history.ts";

const log = logger("rotate");

/** Progress is logged in steps of this share. */
const LOG_SHARE = 0.1;

/** The key that the store is under now, and the settings with the lines that its file has now. */
export interface StartedKey {
  readonly key: string;
  readonly settings: Settings;
}

/** Brings store and key file in order. When it cannot be done the server serves under the key of before. */
export async function finishAtStart(
  store: Store,
  { settings, key, clock }: StartedKey & { readonly clock: Clock },
): Promise<StartedKey> {
  const { dbKey, dataDir } = settings;
  const target = dbKey?.lines[0];
  if (!dbKey || target === undefined) return { key, settings };
  const managed = dbKey.from === "managed";
  try {
    if (target !== key) {
      await reencrypt(store, { target, settings, clock });
    } else if (!managed || dbKey.lines.length === 1 || (await store.oldStores()).length === 0) {
      return { key, settings };
    }
    const lines = managed ? { before: dbKey.lines, after: [target] } : null;
    await tidyUp(store, { lines, keepOld: true }, { dataDir, step: async () => {} });
    return {
      key: target,
      settings: { ...settings, dbKey: { ...dbKey, lines: lines?.after ?? dbKey.lines } },
    };
  } catch (error) {
    log.error("the change of the database key could not be finished: {reason}", { reason: messageOf(error) });
    return { key, settings };
  }
}

async function reencrypt(
  store: Store,
  { target, settings, clock }: { target: string; settings: Settings; clock: Clock },
): Promise<void> {
  const { dataDir } = settings;
  log.info("the database is under a later line of db_key: encrypting it under the first", { path: dataDir });
  await refuseWithoutSpace(dataDir, await store.diskBytes());
  let told = 0;
  await store.rekey(target, (share) => {
    if (share - told < LOG_SHARE) return;
    told = share;
    log.info("encrypting the database: {percent} %", { percent: Math.round(share * 100) });
  });
  const how = "encrypted under the first line of db_key at the start";
  await recordRotation(dataDir, "db-key", { at: clock.now(), via: "running", how });
}
