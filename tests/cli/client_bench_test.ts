/** `bench` and `bench verify` as they are typed. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { ClientWorld } from "../support/client_world.ts";

Deno.test("bench measures, logs what was acknowledged, and bench verify proves it", async (t) => {
  await using world = await ClientWorld.start(["--limits-profile", "bench"]);
  const reach = ["--server", world.address, "--ca", world.caFile, "--auth-token-file", world.tokenFile];
  const log = join(world.folder.path, "acked.log");
  const small = ["--messages", "300", "--connections", "2", "--in-flight", "8", "--recipients", "2"];

  await t.step("enqueue --json prints one object", async () => {
    const { code, out, err } = await world.run([
      ...reach,
      "bench",
      "enqueue",
      ...small,
      "--json",
      "--acked-log",
      log,
    ]);
    assert.equal(code, 0, err);
    const result = JSON.parse(out);
    assert.deepEqual([result.workload, result.operations, result.payloadBytes], ["enqueue", 300, 512]);
    assert.ok(result.perSecond > 0 && result.latencyMs.p999 >= result.latencyMs.p50);
    assert.deepEqual(result.refused, {});
    assert.match(err, /enqueue: preparing\nenqueue: running\n/);
  });
  await t.step(
    "a server that was killed and started again still has it all, and verify needs the log alone",
    async () => {
      await world.server.end("SIGKILL");
      await world.restart();
      const { code, out, err } = await world.run(["bench", "verify", "--acked-log", log, "--keep", "--json"]);
      assert.equal(code, 0, err);
      const { acknowledged, found, missing } = JSON.parse(out);
      assert.deepEqual([acknowledged, found, missing], [300, 300, 0]);
    },
  );
  await t.step("verify fails when a message is missing, and names it", async () => {
    const text = await Deno.readTextFile(log);
    const last = text.trimEnd().split("\n").at(-1)!;
    const missing = `${last.slice(0, 20)}0000ffffffff`;
    await Deno.writeTextFile(log, `${missing} 1\n`, { append: true });
    const { code, out, err } = await world.run(["bench", "verify", "--acked-log", log]);
    assert.equal(code, 1);
    assert.match(out, /^300 of 301 acknowledged messages are there/);
    assert.match(out, new RegExp(`${missing} is missing at bench-`));
    assert.match(err, /1 are missing, 0 are there more than once/);
  });
  await t.step("a table is printed for people", async () => {
    const { code, out, err } = await world.run([
      ...reach,
      "bench",
      "fanout",
      "--messages",
      "20",
      "--recipients",
      "3",
    ]);
    assert.equal(code, 0, err);
    assert.match(out, /^fanout: 4 connections x 4 in flight, 512 bytes: 20 messages in \d/);
    assert.match(out, /^workload +per second +p50 +p90 +p99 +p99\.9 +max$/m);
    assert.match(out, /^fanout +[\d,.]+ +[\d.]+ ms +[\d.]+ ms +[\d.]+ ms +[\d.]+ ms +[\d.]+ ms$/m);
    assert.match(out, /^fanout: entries per second: [\d,.]+$/m);
  });
});

Deno.test("bench refuses what it cannot mean", async (t) => {
  await using world = await ClientWorld.start();
  const wrong: [string, RegExp][] = [
    ["fanuot", /no workload fanuot: did you mean fanout\?/],
    ["enqueue --connections 0", /--connections.*must be 1 to/s],
    ["enqueue --payload 15", /--payload.*must be 16/s],
    ["enqueue --mix pingpong", /--mix is for mixed/],
    ["mixed --mix nothing", /A mix is names/],
    ["pingpong --acked-log x", /the messages of pingpong do not stay/],
    ["verify", /--acked-log FILE/],
    ["enqueue", /--server HOST:PORT/],
  ];
  for (const [words, expected] of wrong) {
    await t.step(words, async () => {
      const { code, err } = await world.run(["bench", ...words.split(" ")]);
      assert.equal(code, 2, err);
      assert.match(err, expected);
    });
  }
  await t.step("a server with its usual limits says how it is to be started", async () => {
    const reach = ["--server", world.address, "--ca", world.caFile, "--auth-token-file", world.tokenFile];
    const { code, err } = await world.run([...reach, "bench", "fanout"]);
    assert.equal(code, 1);
    assert.match(err, /--limits-profile bench/);
  });
});
