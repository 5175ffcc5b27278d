import assert from "node:assert/strict";
import fc from "fast-check";
import { backupCreate, backupPrune } from "../../../mod/admin/backup_operations.ts";
import { choosePruned, type KeepRules } from "../../../mod/admin/backup_prune.ts";
import { MANIFEST } from "../../../mod/admin/backup_manifest.ts";
import { BackupWorld } from "../../support/backup_world.ts";

const DAY = 86_400_000;
const HOUR = 3_600_000;
const NONE: KeepRules = { last: 0, daily: 0, weekly: 0, monthly: 0, withinMs: 0 };
/** A Wednesday. */
const NOW = Date.UTC(2026, 6, 15, 12);

/** Backups so many hours old, named by that. */
function backups(...hours: number[]) {
  return hours.map((age) => ({ id: `${age}h`, createdAt: NOW - age * HOUR }));
}

function keptIds(hours: number[], rules: Partial<KeepRules>): string[] {
  return choosePruned(backups(...hours), { rules: { ...NONE, ...rules }, now: NOW }).kept.map(({ id }) => id);
}

Deno.test("choosePruned() keeps the newest, whatever the rules", () => {
  assert.deepEqual(keptIds([5, 1, 9], {}), ["1h"]);
});

Deno.test("choosePruned() keeps the newest of each day, week and month that has one", () => {
  const hours = [1, 3, 13, 20, 26, 50, 24 * 5, 24 * 12, 24 * 13, 24 * 40, 24 * 41, 24 * 70];
  assert.deepEqual(keptIds(hours, { last: 2 }), ["1h", "3h"]);
  assert.deepEqual(keptIds(hours, { daily: 3 }), ["1h", "13h", "50h"]);
  assert.deepEqual(keptIds(hours, { weekly: 3 }), ["1h", "120h", "288h"]);
  assert.deepEqual(keptIds(hours, { monthly: 3 }), ["1h", "960h", "1680h"]);
  assert.deepEqual(keptIds(hours, { withinMs: DAY }), ["1h", "3h", "13h", "20h"]);
  assert.deepEqual(keptIds(hours, { last: 1, monthly: 2, withinMs: 4 * HOUR }), ["1h", "3h", "960h"]);
});

Deno.test("choosePruned() loses none, and more generous rules keep no less", () => {
  const count = fc.nat({ max: 8 });
  const rules = fc.record({
    last: count,
    daily: count,
    weekly: count,
    monthly: count,
    withinMs: fc.nat({ max: 90 * DAY }),
  });
  const ages = fc.uniqueArray(fc.nat({ max: 3000 }), { minLength: 1, maxLength: 40 });
  fc.assert(fc.property(ages, rules, rules, (hours, one, two) => {
    const all = backups(...hours);
    const { kept, removed } = choosePruned(all, { rules: one, now: NOW });
    assert.deepEqual(
      [...kept.map(({ id }) => id), ...removed].sort(),
      all.map(({ id }) => id).sort(),
    );
    const generous = Object.fromEntries(
      Object.entries(one).map(([name, value]) => [name, value + two[name as keyof KeepRules]]),
    ) as unknown as KeepRules;
    const more = new Set(choosePruned(all, { rules: generous, now: NOW }).kept.map(({ id }) => id));
    for (const { id } of kept) assert.ok(more.has(id), id);
  }));
});

Deno.test("prune removes what no rule keeps, and leaves a backup that cannot be read", async () => {
  await using world = await BackupWorld.make("file");
  const made: string[] = [];
  for (let i = 0; i < 3; i++) made.push((await world.run(backupCreate))["id"] as string);
  made.sort();
  await Deno.writeTextFile(world.path(`data/backups/${made[0]}/${MANIFEST}`), "{");
  const plan = await world.run(backupPrune, { keepLast: 1, dryRun: true });
  assert.equal((plan["removed"] as string[]).length, 1);
  assert.deepEqual(await world.inBackups(), made);
  const pruned = await world.run(backupPrune, { keepLast: 1 });
  assert.deepEqual([pruned["removed"], pruned["unreadable"]], [plan["removed"], [made[0]]]);
  assert.equal((await world.inBackups()).length, 2);
});

Deno.test("prune goes by the configuration when no rule is given", async () => {
  await using world = await BackupWorld.make("file");
  for (let i = 0; i < 3; i++) await world.run(backupCreate);
  const flags = {
    "backup-keep-last": "2",
    "backup-keep-daily": "0",
    "backup-keep-weekly": "0",
    "backup-keep-monthly": "0",
    "backup-keep-within": "0",
  };
  const { removed } = await world.run(backupPrune, {}, { flags });
  assert.equal((removed as string[]).length, 1);
});
