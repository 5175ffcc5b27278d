/** The load generator against a real server: each workload does what it says, and leaves nothing behind. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { fromHex } from "../../mod/base/bytes.ts";
import { readAckedLog } from "../../mod/client/bench/acked_log.ts";
import { type BenchRun, runBench } from "../../mod/client/bench/bench.ts";
import type { BenchTarget } from "../../mod/client/bench/bench_server.ts";
import { messageIdText } from "../../mod/client/bench/enqueue_template.ts";
import type { LoadOptions } from "../../mod/client/bench/load.ts";
import { partsOfMix } from "../../mod/client/bench/mixed.ts";
import { verifyAcked } from "../../mod/client/bench/verify.ts";
import { loadOptions, type WorkloadName } from "../../mod/client/bench/workloads.ts";
import { parseFingerprint } from "../../mod/transport/fingerprint.ts";
import { tempFolder } from "../support/temp_folder.ts";
import { newAccount } from "../support/test_client.ts";
import { startTestServer, type TestServer } from "../support/test_server.ts";

const BENCH = { flags: { "limits-profile": "bench" } };

function targetOf(server: TestServer): BenchTarget {
  const { hostname, port, accessToken, fingerprint } = server;
  return {
    server: { hostname, port },
    choice: { fingerprint: parseFingerprint(fingerprint)! },
    accessToken,
  };
}

/** So many operations, however long they take. */
const operations = (count: number) => ({ warmUpMs: 0, durationMs: 600_000, operations: count });

async function runOne(
  server: TestServer,
  workload: WorkloadName,
  run: { count: number; options: Partial<LoadOptions> } & Partial<BenchRun>,
) {
  const { count, options, ...others } = run;
  const parts = [{ workload, options: loadOptions(workload, options) }];
  const [result] = await runBench(targetOf(server), { parts, span: operations(count), ...others });
  return result!;
}

async function accountsOf(server: TestServer): Promise<string[]> {
  const accounts = await server.server.context.store.listAccounts({ afterName: "", limit: 1000 });
  return accounts.map(({ userName }) => userName);
}

/** What each workload is run with, and how many operations it then has. */
const RUNS: readonly [WorkloadName, { count: number; options: Partial<LoadOptions> }][] = [
  ["enqueue", { count: 200, options: { connections: 2, inFlight: 8, recipients: 3 } }],
  ["pingpong", { count: 60, options: { connections: 2, inFlight: 3 } }],
  ["pingpong", { count: 30, options: { connections: 1, inFlight: 2, receive: "fetchWait" } }],
  ["fanout", { count: 20, options: { connections: 2, inFlight: 2, recipients: 130 } }],
  ["drain", { count: 250, options: { connections: 3, backlog: 250 } }],
  ["login", { count: 4, options: { connections: 2 } }],
  ["handshake", { count: 6, options: { connections: 3 } }],
  ["reconnect", { count: 5, options: { connections: 5 } }],
  ["idle", { count: 20, options: { connections: 4, perSecond: 1000 } }],
];

Deno.test("every workload does as many operations as it is asked for, and deletes its accounts", async (t) => {
  await using server = await startTestServer(BENCH);
  for (const [workload, run] of RUNS) {
    await t.step(`${workload} ${run.options.receive ?? ""}`.trim(), async () => {
      const result = await runOne(server, workload, run);
      assert.equal(result.operations, run.count);
      assert.deepEqual(result.refused, {});
      const { p50, p99, max } = result.latencyMs;
      assert.ok(p50 > 0 && p50 <= p99 && p99 <= max, JSON.stringify(result.latencyMs));
      assert.deepEqual(await accountsOf(server), []);
    });
  }
});

Deno.test("a mix measures each of its workloads, for as long as the first runs", async () => {
  await using server = await startTestServer(BENCH);
  const parts = partsOfMix("pingpong,login:2", { connections: 1 });
  const [pingpong, login] = await runBench(targetOf(server), { parts, span: operations(200) });
  assert.deepEqual([pingpong!.workload, pingpong!.operations], ["pingpong", 200]);
  assert.equal(login!.workload, "login");
  assert.deepEqual(await accountsOf(server), []);
});

Deno.test("a rate is kept, and what is refused is counted by its name", async () => {
  await using server = await startTestServer({
    flags: { "limits-profile": "bench", "limits-queue-depth-max": "5" },
  });
  const options = { connections: 1, inFlight: 1, recipients: 1, perSecond: 1000 };
  const result = await runOne(server, "enqueue", { count: 8, options });
  assert.equal(result.operations, 5);
  assert.deepEqual(result.refused, { queueFull: 3 });
});

Deno.test("an interrupted bench says what it has measured, and deletes its accounts", async () => {
  await using server = await startTestServer(BENCH);
  const interrupted = new AbortController();
  const result = await runOne(server, "idle", {
    count: 1e6,
    options: { connections: 2, perSecond: 1e6 },
    signal: interrupted.signal,
    onProgress: () => interrupted.abort(),
  });
  assert.ok(result.operations > 0 && result.operations < 1e6);
  assert.deepEqual(await accountsOf(server), []);
});

Deno.test("a bench that cannot go on fails, deletes its accounts and says what to do", async () => {
  await using server = await startTestServer({ flags: { "limits-registration-rate": "3" } });
  const running = runOne(server, "enqueue", { count: 1, options: { recipients: 6 } });
  await assert.rejects(running, { code: "rateLimited" });
  assert.deepEqual(await accountsOf(server), []);
});

Deno.test("verify finds what was acknowledged, what is missing, and what is there twice", async (t) => {
  await using server = await startTestServer(BENCH);
  await using folder = await tempFolder();
  const path = join(folder.path, "acked.log");
  const options = { connections: 2, inFlight: 4, recipients: 3 };
  await runOne(server, "enqueue", { count: 100, options, ackedLogPath: path });
  const { run, recipients, numbers } = await readAckedLog(path);
  const known = { acknowledged: 100, found: 100, missing: 0, duplicated: 0, unlogged: 0, examples: [] };

  await t.step("all is there, and only the recipients are left", async () => {
    assert.deepEqual((await accountsOf(server)).sort(), recipients.map(({ userName }) => userName).sort());
    assert.deepEqual(await verifyAcked(path, { target: targetOf(server), keep: true }), known);
  });
  await t.step("a message of the run that the log does not name is counted apart", async () => {
    await using sender = await newAccount(server, "sender");
    const payload = fromHex(messageIdText(run, 1_000_000));
    await sender.enqueue([fromHex(recipients[0]!.device.deviceId)], { payload });
    assert.deepEqual(await verifyAcked(path, { keep: true }), { ...known, unlogged: 1 });
  });
  await t.step("a second copy of a message is found", async () => {
    await using sender = await newAccount(server, "second");
    const payload = fromHex(messageIdText(run, numbers[1]![0]!));
    await sender.enqueue([fromHex(recipients[1]!.device.deviceId)], { payload });
    const { duplicated, examples } = await verifyAcked(path);
    assert.equal(duplicated, 1);
    assert.deepEqual(examples, [
      `${messageIdText(run, numbers[1]![0]!)} is there 2 times at ${recipients[1]!.userName}`,
    ]);
  });
  await t.step("a message that is not there is missing, and the accounts stay to be looked at", async () => {
    await Deno.writeTextFile(path, `${messageIdText(run, 999_999)} 2\n`, { append: true });
    const verdict = await verifyAcked(path);
    assert.deepEqual([verdict.acknowledged, verdict.found, verdict.missing], [101, 100, 1]);
    assert.match(verdict.examples.join(), /0f423f is missing at bench-/);
    assert.equal((await accountsOf(server)).filter((name) => name.startsWith("bench-")).length, 3);
  });
});
