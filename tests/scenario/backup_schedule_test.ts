/** Backups that a running server makes by itself, and the metrics that tell of them. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { FakeClock } from "../support/fake_clock.ts";
import { BackupSchedule } from "../../mod/server/backup_schedule.ts";
import { AdminBusyError } from "../../mod/admin/operations_error.ts";
import type { ServerContext } from "../../mod/server/context.ts";
import { callControl } from "../../mod/admin/control.ts";
import { defaultSettings } from "../../mod/config/options.ts";
import { Metrics } from "../../mod/observe/metrics.ts";
import { tempFolder } from "../support/temp_folder.ts";
import { startTestServer, type TestServer } from "../support/test_server.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

async function metric(server: TestServer, name: string): Promise<number> {
  const { body } = await server.server.context.metrics.expose();
  const match = new RegExp(`^${name} (\\S+)$`, "m").exec(body);
  assert.ok(match, name);
  return Number(match[1]);
}

async function backups(dataDir: string): Promise<string[]> {
  return (await Array.fromAsync(Deno.readDir(join(dataDir, "backups")), ({ name }) => name)).sort();
}

/** The work itself takes real time: waits until the folder holds so many whole backups. */
async function untilBackups(dataDir: string, count: number): Promise<void> {
  await using watcher = watch(join(dataDir, "backups"));
  for (let next = watcher.changed();; next = watcher.changed()) {
    const names = await backups(dataDir);
    if (names.length === count && !names.some((name) => name.startsWith("."))) return;
    await next;
  }
}

/** Tells of changes in a folder. */
function watch(folder: string) {
  const watcher = Deno.watchFs(folder, { recursive: false });
  const events = watcher[Symbol.asyncIterator]();
  return {
    changed: () => events.next(),
    async [Symbol.asyncDispose]() {
      watcher.close();
    },
  };
}

Deno.test("a schedule makes backups, after a restart too, and the metrics know the last one", async () => {
  await using folder = await tempFolder();
  const dataDir = join(folder.path, "data");
  await Deno.mkdir(dataDir);
  const clock = new FakeClock();
  const flags = { "backup-schedule": "6h", "backup-jitter": "0", "store-backend": "file" };
  {
    await using server = await startTestServer({ dataDir, clock, flags });
    assert.equal(await metric(server, "qpq_backup_interval_seconds"), 6 * 3600);
    assert.equal(await metric(server, "qpq_backup_last_success_timestamp_seconds"), 0);
    await clock.advance(MINUTE);
    await untilBackups(dataDir, 1);
    assert.equal(await metric(server, "qpq_backup_last_success_timestamp_seconds"), clock.now() / 1000);
  }
  const first = clock.now();
  clock.jumpWall(2 * HOUR);
  {
    await using server = await startTestServer({ dataDir, clock, flags });
    assert.equal(await metric(server, "qpq_backup_last_success_timestamp_seconds"), first / 1000);
    await clock.advance(MINUTE);
    assert.equal((await backups(dataDir)).length, 1);
  }
  clock.jumpWall(20 * HOUR); // stopped over three backups
  await using server = await startTestServer({ dataDir, clock, flags });
  await clock.advance(MINUTE);
  await untilBackups(dataDir, 2);
  assert.equal(await metric(server, "qpq_backup_failures_total"), 0);
});

Deno.test("a backup that an operator makes counts for the metrics at once", async () => {
  await using server = await startTestServer({ flags: { "store-backend": "file" } });
  assert.equal(await metric(server, "qpq_backup_interval_seconds"), 0);
  await callControl(server.dataDir, { name: "backup create" });
  assert.ok(Date.now() / 1000 - await metric(server, "qpq_backup_last_success_timestamp_seconds") < 60);
});

/** A schedule by itself, with what it calls in the test's hands. */
function scheduleAlone(dataDir: string, schedule: string, create: () => Promise<void>) {
  const clock = new FakeClock();
  const metrics = new Metrics({ version: "0", methods: [], limits: [], clock });
  const settings = defaultSettings();
  const context = {
    clock,
    metrics,
    draining: false,
    settings: { ...settings, dataDir, backup: { ...settings.backup, schedule, jitterMs: 0 } },
  } as unknown as ServerContext;
  let pruned = 0;
  const handlers = {
    create: async () => (await create(), null),
    prune: async () => (pruned++, null),
  };
  const subject = new BackupSchedule(context, handlers);
  subject.start();
  return { clock, subject, metrics, pruned: () => pruned };
}

Deno.test("a scheduled backup that fails is counted, and tried again a little later", async () => {
  await using folder = await tempFolder();
  let tries = 0;
  const world = scheduleAlone(folder.path, "03:30", async () => {
    tries++;
    throw new Error("the disk is full");
  });
  await using _schedule = world.subject;
  const minutes = async (count: number) => {
    for (let i = 0; i < count; i++) {
      await world.clock.advance(MINUTE);
      await world.subject.idle();
    }
  };
  await minutes(1);
  assert.equal(tries, 1);
  await minutes(3); // one minute later, then two
  assert.equal(tries, 3);
  await minutes(30);
  assert.ok(tries < 8, `${tries} tries`);
  const { body } = await world.metrics.expose();
  assert.match(body, new RegExp(`qpq_backup_failures_total ${tries}`));
  assert.equal(world.pruned(), 0);
});

Deno.test("a scheduled backup waits for an operator's own, and that is no failure", async () => {
  await using folder = await tempFolder();
  let busy = true;
  let made = 0;
  const world = scheduleAlone(folder.path, "1h", async () => {
    if (busy) throw new AdminBusyError("Cannot backup create while …");
    made++;
  });
  await using _schedule = world.subject;
  await world.clock.advance(MINUTE);
  await world.subject.idle();
  busy = false;
  await world.clock.advance(MINUTE);
  await world.subject.idle();
  assert.deepEqual([made, world.pruned()], [1, 1]);
  assert.match((await world.metrics.expose()).body, /qpq_backup_failures_total 0/);
});

Deno.test("without a schedule nothing is made", async () => {
  await using folder = await tempFolder();
  const world = scheduleAlone(folder.path, "off", () => assert.fail("a backup was made"));
  await using _schedule = world.subject;
  for (let i = 0; i < 5; i++) {
    await world.clock.advance(HOUR);
    await world.subject.idle();
  }
});
