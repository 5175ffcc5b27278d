import assert from "node:assert/strict";
import { join } from "node:path";
import { hex, randomBytes } from "../../../../mod/base/bytes.ts";
import { randomId } from "../../../../mod/base/ids.ts";
import { AckedLog, readAckedLog } from "../../../../mod/client/bench/acked_log.ts";
import type { BenchDevice } from "../../../../mod/client/bench/bench_accounts.ts";
import { BenchServer } from "../../../../mod/client/bench/bench_server.ts";
import { newRun } from "../../../../mod/client/bench/enqueue_template.ts";
import { makeDevice } from "../../../../mod/client/session.ts";
import { tempFolder } from "../../../support/temp_folder.ts";

const RUN = newRun(1_800_000_000_000);

async function device(userName: string): Promise<BenchDevice> {
  return { userName, password: "random", device: await makeDevice("bench"), sessionId: randomId() };
}

/** A log of two recipients: message 1 for the second, 2^33 for the first, 3 for both. */
async function writeLog(path: string) {
  const recipients = [await device("bench-1-0"), await device("bench-1-1")];
  const trust = { caPem: "ca", fingerprint: randomBytes(32), pins: [randomBytes(32)] };
  {
    using log = new AckedLog(path, RUN);
    log.begin(new BenchServer({ server: { hostname: "127.0.0.1", port: 7000 }, trust }), recipients);
    log.add(1, 1);
    log.add(2 ** 33, 0);
    log.add(3, "all");
  }
  return { recipients, trust };
}

Deno.test("a log is read as it was written, and is its owner's alone", async () => {
  await using folder = await tempFolder();
  const path = join(folder.path, "acked.log");
  const { recipients, trust } = await writeLog(path);
  const read = await readAckedLog(path);
  assert.deepEqual(read.numbers, [[2 ** 33], [1]]);
  assert.deepEqual(read.numbersOfAll, [3]);
  assert.deepEqual(read.recipients, recipients);
  assert.deepEqual(read.trust, trust);
  assert.equal(hex(read.run), hex(RUN));
  assert.equal((await Deno.stat(path)).mode! & 0o777, 0o600);
});

Deno.test("a last line that was cut off is left out", async () => {
  await using folder = await tempFolder();
  const path = join(folder.path, "acked.log");
  await writeLog(path);
  const { size } = await Deno.stat(path);
  await Deno.truncate(path, size - 1);
  assert.deepEqual((await readAckedLog(path)).numbersOfAll, []);
});

Deno.test("what is no log, or of another run, is refused", async () => {
  await using folder = await tempFolder();
  const path = join(folder.path, "acked.log");
  await Deno.writeTextFile(path, '{"format":"another"}\n');
  await assert.rejects(readAckedLog(path), /no acked log/);
  await Deno.writeTextFile(path, "");
  await assert.rejects(readAckedLog(path), /no acked log/);
  const log = join(folder.path, "log");
  await writeLog(log);
  await Deno.writeTextFile(log, `${"ab".repeat(16)} 0\n`, { append: true });
  await assert.rejects(readAckedLog(log), /no line of an acked log/);
});

Deno.test("a log never replaces a file", async () => {
  await using folder = await tempFolder();
  const path = join(folder.path, "acked.log");
  await writeLog(path);
  assert.throws(() => new AckedLog(path, RUN), Deno.errors.AlreadyExists);
});
