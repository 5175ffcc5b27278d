/** `backup prune`: which backups stay, and the removal of the others. */
import { join } from "node:path";
import { messageOf } from "../base/errors.ts";
import { syncFolder } from "../base/files.ts";
import { logger } from "../base/log.ts";
import { removeAll } from "./backup_files.ts";
import { draftFolder, findBackups, type FoundBackup, removeDrafts } from "./backup_list.ts";
import { AdminError } from "./operations_error.ts";

const log = logger("backup");

const DAY_MS = 86_400_000;

/** What is to stay; each rule keeps what it keeps, whatever the others say. */
export interface KeepRules {
  /** The newest so many. */
  readonly last: number;
  /** Of each of the last so many days (UTC), weeks (from Monday) and months that have one, the newest. */
  readonly daily: number;
  readonly weekly: number;
  readonly monthly: number;
  /** All that are younger. */
  readonly withinMs: number;
}

/** A backup that stays, and why. */
export interface Kept {
  readonly id: string;
  readonly because: readonly string[];
}

/** What a prune did, or would do. */
export interface Pruned {
  readonly kept: readonly Kept[];
  readonly removed: readonly string[];
  /** Backups whose manifest cannot be read: not touched. */
  readonly unreadable: readonly string[];
}

/** Sorts backups into those that stay and those that go. The newest always stays. */
export function choosePruned(
  backups: readonly { readonly id: string; readonly createdAt: number }[],
  { rules, now }: { rules: KeepRules; now: number },
): { kept: Kept[]; removed: string[] } {
  const newestFirst = [...backups].sort((a, b) => b.createdAt - a.createdAt || (a.id < b.id ? 1 : -1));
  const periods: [string, number, (at: number) => string][] = [
    ["daily", rules.daily, (at) => new Date(at).toISOString().slice(0, 10)],
    ["weekly", rules.weekly, (at) => String(Math.floor((at / DAY_MS + 3) / 7))], // 1970-01-01 was a Thursday
    ["monthly", rules.monthly, (at) => new Date(at).toISOString().slice(0, 7)],
  ];
  const seen = new Map<string, Set<string>>();
  const kept: Kept[] = [];
  const removed: string[] = [];
  for (const [index, { id, createdAt }] of newestFirst.entries()) {
    const because: string[] = [];
    if (index < Math.max(1, rules.last)) because.push("last");
    if (rules.withinMs > 0 && now - createdAt < rules.withinMs) because.push("within");
    for (const [name, count, periodOf] of periods) {
      const periodsSeen = seen.get(name) ?? new Set();
      seen.set(name, periodsSeen);
      const period = periodOf(createdAt);
      if (periodsSeen.has(period) || periodsSeen.size >= count) continue;
      periodsSeen.add(period);
      because.push(name);
    }
    if (because.length > 0) kept.push({ id, because });
    else removed.push(id);
  }
  return { kept, removed };
}

/** Removes what the rules do not keep; with `dryRun` only says what that would be. Throws AdminError. */
export async function pruneBackups(
  backupsDir: string,
  options: {
    readonly rules: KeepRules;
    readonly now: number;
    readonly dryRun: boolean;
    readonly dataDir: string;
  },
): Promise<Pruned> {
  const all = await findBackups(backupsDir);
  const readable = all.filter((found): found is FoundBackup & { manifest: object } =>
    found.manifest !== null
  );
  const unreadable = all.filter(({ manifest }) => manifest === null).map(({ id }) => id);
  const dated = readable.map(({ id, manifest }) => ({ id, createdAt: manifest.createdAt }));
  const { kept, removed } = choosePruned(dated, options);
  if (!options.dryRun) {
    await removeDrafts(backupsDir, { kinds: ["removing"], dataDir: options.dataDir });
    for (const id of removed) await removeBackup(backupsDir, id, options.dataDir);
  }
  return { kept, removed, unreadable };
}

/** Takes the name away first: half a backup must not look like one. */
async function removeBackup(backupsDir: string, id: string, dataDir: string): Promise<void> {
  const doomed = await draftFolder(backupsDir, "removing", dataDir);
  try {
    await Deno.rename(join(backupsDir, id), doomed);
    await syncFolder(backupsDir);
    await removeAll(doomed);
  } catch (cause) {
    throw new AdminError(`Cannot remove the backup ${id}: ${messageOf(cause)}`, { cause });
  }
  log.info("removed backup {id}", { id });
}
