/**
 * `rotate db-key`: the store is encrypted anew under another key, beside the old one, checked, and swapped. A managed
 * key file has both keys before the swap and one after it; the old store is removed last. A key that is the operator's
 * (environment, own file) is written by the operator: new line first, old line behind it; then this command, or the
 * next start, encrypts the store under the first line.
 */
import { hex, randomBytes } from "../base/bytes.ts";
import { managedSecretPath } from "../config/load.ts";
import type { Secret } from "../config/options.ts";
import type { Store } from "../store/store.ts";
import { entropyBits } from "./doctor_keys.ts";
import {
  type AdminContext,
  AdminError,
  type JsonObject,
  type Operation,
  type Progress,
} from "./operations.ts";
import { InputReader } from "./operations_input.ts";
import {
  forgetFormerLines,
  keepOldKey,
  oldKeysPath,
  readKeyLines,
  refuseWithoutSpace,
  replaceKeyLines,
  storeKeysOf,
  writeKeyLines,
} from "./rotate_db_key_file.ts";
import { finishRotation } from "./rotate_history.ts";
import { rotationAnswer } from "./rotate_plan.ts";

/** A copy of the file is guessed at offline. */
const KEY_BITS_MIN = 80;

/** What to do: from which key to which, and what becomes of the managed file. */
interface Plan {
  readonly current: string;
  readonly target: string;
  /** Of the managed file, before and after; null: the file is not ours. */
  readonly lines: { readonly before: readonly string[]; readonly after: readonly string[] } | null;
  readonly keepOld: boolean;
  readonly how: string;
}

/** A new key for the store. */
export const rotateDbKey: Operation = {
  name: "rotate db-key",
  whenStopped: "changes",
  audited: true,
  secretInputs: ["key"],
  alone: "rotation",
  async run(context, input, progress) {
    const read = new InputReader(input);
    const dryRun = read.flag("dryRun");
    const forget = read.flag("forgetOld");
    const given = read.text("key");
    read.end();
    const { dbKey } = context.settings;
    if (storeKeysOf(context.settings) === null) {
      throw new AdminError(
        "There is no database key yet: start the server or run 'qpq-server init', which makes one",
      );
    }
    if (given !== null) refuseUnusable(given, await context.storeKey());
    const foreign = dbKey !== null && dbKey.from !== "managed";
    if (foreign && given !== null) {
      throw new AdminError(
        `The key is yours to write, as it comes from ${placeOf(dbKey)}: run this without --key-file`,
      );
    }
    const plan = foreign
      ? await foreignPlan(context, dbKey)
      : await managedPlan(context, { given, keepOld: !forget });
    if (!plan) return adviceFor(dbKey!, dryRun);
    return await carryOut(context, plan, { dryRun, progress });
  },
};

function refuseUnusable(key: string, current: string): void {
  if (key.trim() === "" || /[\n\r\0]/.test(key)) {
    throw new AdminError("The new key must be one line that is not empty");
  }
  if (key === current) throw new AdminError("The database is under this key already");
  if (entropyBits(key) >= KEY_BITS_MIN) return;
  throw new AdminError(
    `The new key is too easy to guess (about ${
      Math.floor(entropyBits(key))
    } of ${KEY_BITS_MIN} bits): give 64 ` +
      `random hex digits (openssl rand -hex 32), or leave --key-file out`,
  );
}

async function managedPlan(
  { settings, storeKey }: AdminContext,
  { given, keepOld }: { given: string | null; keepOld: boolean },
): Promise<Plan> {
  const current = await storeKey();
  const lines = settings.dbKey ? await readKeyLines(managedSecretPath(settings.dataDir, "db_key")) : [];
  const interrupted = lines[0] !== undefined && lines[0] !== current;
  if (interrupted && given === null) {
    const after = [lines[0]!];
    return {
      current,
      target: after[0]!,
      lines: { before: lines, after },
      keepOld,
      how: "finished an earlier one",
    };
  }
  const target = given ?? hex(randomBytes(32));
  // A key that stands before the present one was never used.
  const others = lines.filter((line) => line !== current && line !== target);
  const before = [target, current, ...others].filter((line) => line !== "");
  return { current, target, lines: { before, after: [target] }, keepOld, how: "a new key" };
}

/** Null: the operator has not written a new line yet. */
async function foreignPlan(
  { settings, storeKey, server }: AdminContext,
  secret: Secret,
): Promise<Plan | null> {
  const current = await storeKey();
  const lines = secret.from === "file" ? await readKeyLines(secret.path!) : secret.lines;
  const target = lines[0]!;
  if (target === current) return null;
  if (!lines.includes(current) && current !== "") {
    throw new AdminError(
      `${
        placeOf(secret)
      } has a new key but no longer the present one: add the present one as a second line, so that ` +
        `the server starts whatever happens meanwhile${
          server ? "" : `; the store is in ${settings.dataDir}`
        }`,
    );
  }
  return { current, target, lines: null, keepOld: false, how: `taken up from ${placeOf(secret)}` };
}

async function carryOut(
  context: AdminContext,
  plan: Plan,
  { dryRun, progress }: { dryRun: boolean; progress: Progress },
): Promise<JsonObject> {
  const { settings, server } = context;
  const store = await context.store();
  const bytes = await store.diskBytes();
  await refuseWithoutSpace(settings.dataDir, bytes);
  const described = { steps: stepsOf(context, plan), notes: notesOf(context, plan) };
  const base = { key: "db-key", dryRun, changes: true, ...described } as const;
  if (dryRun) return rotationAnswer({ ...base, version: null, more: { bytes } });
  server?.hideSecret(plan.target);
  const began = context.clock.monotonic();
  const work = () => reencrypt(store, plan, { dataDir: settings.dataDir, progress, step: context.step });
  const written = await (server ? server.storeKey.changing(work) : work());
  server?.storeKey.replaced(plan.target, plan.lines?.before ?? [plan.target, plan.current]);
  await tidyUp(store, plan, { dataDir: settings.dataDir, step: context.step });
  if (plan.lines) server?.storeKey.replaced(plan.target, plan.lines.after);
  const tookMs = Math.round(context.clock.monotonic() - began);
  const version = await finishRotation(context, "db-key", `${plan.how}; ${tookMs} ms`);
  await context.step("wrote the history");
  return rotationAnswer({ ...base, version, more: { bytes: written, tookMs } });
}

/** The store is under the new key, and the managed file has both. When it fails, all is as it was. */
async function reencrypt(
  store: Store,
  { target, lines }: Plan,
  { dataDir, progress, step }: { dataDir: string; progress: Progress; step: AdminContext["step"] },
): Promise<number> {
  const undo = lines ? await replaceKeyLines(dataDir, lines.before) : null;
  if (lines) await step("wrote both keys");
  const { bytes } = await store.rekey(target, progress).catch(async (error) => {
    await undo?.();
    throw error;
  });
  await step("encrypted the store anew");
  return bytes;
}

/** Takes the old store and the old key away. */
export async function tidyUp(
  store: Store,
  { lines, keepOld }: Pick<Plan, "lines" | "keepOld">,
  { dataDir, step }: { dataDir: string; step: AdminContext["step"] },
): Promise<void> {
  for (const old of await store.oldStores()) await Deno.remove(old, { recursive: true });
  await step("removed the old store");
  if (!lines) return;
  if (keepOld) {
    // Lines that an interrupted rotation has left are keys of older backups too.
    const unused = lines.before.filter((line) => !lines.after.includes(line) && line !== "");
    for (const key of unused.reverse()) await keepOldKey(dataDir, key);
    await step("kept the old key for older backups");
  }
  await writeKeyLines(dataDir, lines.after);
  await forgetFormerLines(dataDir);
  await step("removed the old key");
}

function stepsOf({ settings, server }: AdminContext, { lines, keepOld, current }: Plan): string[] {
  const path = managedSecretPath(settings.dataDir, "db_key");
  return [
    ...(lines ? [`${path}: the new key as its first line, the old one behind it`] : []),
    `the database is written anew under the new key, read back, checked, and swapped${
      server ? "; writes wait meanwhile, reads go on" : ""
    }`,
    "the old database is removed",
    ...(lines && current !== ""
      ? [`${path}: the old key is removed${keepOld ? `; ${oldKeysPath(settings.dataDir)} keeps it` : ""}`]
      : []),
  ];
}

function notesOf({ settings }: AdminContext, { lines, keepOld, current }: Plan): string[] {
  if (current === "") {
    return [
      "The database is encrypted now: remove allow_plaintext_store from the configuration",
      "Older backups are not encrypted",
    ];
  }
  const kept = lines && keepOld
    ? `: it is in ${oldKeysPath(settings.dataDir)} (db_key_file may name it)`
    : "";
  return [
    `Backups that were made before still need the old key${kept}`,
    "After a leak: make a new backup now, then delete the older ones and the old key",
    ...(lines
      ? [`Copy the new key to your safe place: ${managedSecretPath(settings.dataDir, "db_key")}`]
      : ["You may now remove the old line from where the key is kept, and must keep it for older backups"]),
  ];
}

/** The operator's own key: what to write where. */
function adviceFor(secret: Secret, dryRun: boolean): JsonObject {
  const write = "write the line below above the present one, and leave the present one as the second line";
  const later: Record<Secret["from"], string> = {
    file: "Then run this command again: it works on the running server",
    configuration: "Then restart the server: it encrypts the database under the first line before it serves",
    environment: "Then restart the server: it encrypts the database under the first line before it serves",
    flag: "Then restart the server: it encrypts the database under the first line before it serves",
    managed: "",
  };
  return rotationAnswer({
    key: "db-key",
    dryRun,
    changes: false,
    version: null,
    steps: [],
    notes: [
      `The key comes from ${placeOf(secret)}, which is yours: ${write}`,
      later[secret.from],
      "Backups that were made before still need the present key; after a leak: a new backup, and delete the older ones",
    ],
    more: { line: hex(randomBytes(32)) },
  });
}

function placeOf({ from, path }: Secret): string {
  switch (from) {
    case "environment":
      return "the environment (QPQ_DB_KEY)";
    case "flag":
      return "a flag (--db-key)";
    case "configuration":
      return "the configuration file (db_key)";
    default:
      return path!;
  }
}
