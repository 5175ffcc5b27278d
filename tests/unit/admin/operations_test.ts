import assert from "node:assert/strict";
import { join } from "node:path";
import {
  type AdminContext,
  AdminError,
  type JsonObject,
  noStep,
  type Operation,
  OperationRunner,
} from "../../../mod/admin/operations.ts";
import { defaultSettings } from "../../../mod/config/options.ts";
import { FakeClock } from "../../support/fake_clock.ts";
import { tempFolder } from "../../support/temp_folder.ts";

function contextOf(dataDir: string, via: "running" | "stopped" = "stopped"): AdminContext {
  const never = () => {
    throw new Error("This operation needs no store");
  };
  return {
    via,
    clock: new FakeClock(),
    settings: { ...defaultSettings(), dataDir },
    store: never,
    storeKey: never,
    deviceRevokedNotice: never,
    server: null,
    step: noStep,
  };
}

function operation(change: Partial<Operation>): Operation {
  return { name: "try it", whenStopped: "changes", audited: true, run: async () => ({}), ...change };
}

async function auditLines(dataDir: string): Promise<JsonObject[]> {
  const text = await Deno.readTextFile(join(dataDir, "audit.log"));
  return text.trim().split("\n").map((line) => JSON.parse(line));
}

Deno.test("OperationRunner.run() writes begun before the work and done after it", async () => {
  await using folder = await tempFolder();
  const runner = new OperationRunner(contextOf(folder.path));
  const during: JsonObject[] = [];
  const run = async () => {
    during.push(...await auditLines(folder.path));
    return { fine: true };
  };
  assert.deepEqual(await runner.run(operation({ run }), { input: { count: 1 } }), { fine: true });
  assert.deepEqual(during.map(({ outcome, input }) => [outcome, input]), [["begun", { count: 1 }]]);
  const lines = await auditLines(folder.path);
  assert.deepEqual(lines.map(({ outcome }) => outcome), ["begun", "done"]);
  assert.equal(lines[0]!["id"], lines[1]!["id"]);
});

Deno.test("OperationRunner.run() writes why it failed, and hides what is secret", async () => {
  await using folder = await tempFolder();
  const runner = new OperationRunner(contextOf(folder.path));
  const run = async () => {
    throw new AdminError("The moon is in the way");
  };
  const failing = operation({ run, secretInputs: ["key"] });
  await assert.rejects(runner.run(failing, { input: { key: "hunter2", name: "x" } }), /moon/);
  const [begun, failed] = await auditLines(folder.path);
  assert.deepEqual(begun!["input"], { key: "…", name: "x" });
  assert.deepEqual([failed!["outcome"], failed!["reason"]], ["failed", "The moon is in the way"]);
});

Deno.test("OperationRunner.run() leaves dry runs and readers out of the audit log", async () => {
  await using folder = await tempFolder();
  const runner = new OperationRunner(contextOf(folder.path));
  await runner.run(operation({}), { input: { dryRun: true } });
  await runner.run(operation({ audited: false }), { input: {} });
  await assert.rejects(auditLines(folder.path), Deno.errors.NotFound);
});

Deno.test("OperationRunner.run() refuses a second operation of the same kind, and names the first", async () => {
  await using folder = await tempFolder();
  const runner = new OperationRunner(contextOf(folder.path));
  const gate = Promise.withResolvers<JsonObject>();
  const first = operation({ name: "rotate tls", alone: "rotation", run: () => gate.promise });
  const second = operation({ name: "rotate opaque", alone: "rotation" });
  const running = runner.run(first, { input: {} });
  await assert.rejects(
    runner.run(second, { input: {} }),
    /Cannot rotate opaque while "rotate tls" is running \(since 2026-01-01T00:00:00.000Z\)/,
  );
  await runner.run(operation({ name: "backup create", alone: "backup" }), { input: {} });
  gate.resolve({});
  await running;
  await runner.run(second, { input: {} });
});

Deno.test("OperationRunner.run() frees its place when the operation fails", async () => {
  await using folder = await tempFolder();
  const runner = new OperationRunner(contextOf(folder.path));
  const run = async () => {
    throw new AdminError("no");
  };
  await assert.rejects(runner.run(operation({ alone: "rotation", run }), { input: {} }), /no/);
  await runner.run(operation({ alone: "rotation" }), { input: {} });
});

Deno.test("OperationRunner.run() refuses what needs a running server on a stopped one", async () => {
  await using folder = await tempFolder();
  const runner = new OperationRunner(contextOf(folder.path));
  const refused = runner.run(operation({ whenStopped: "refused" }), { input: {} });
  await assert.rejects(refused, /Only a running server can do this: try it/);
});

Deno.test("OperationRunner.run() does nothing when the audit log cannot be written", async () => {
  await using folder = await tempFolder();
  await Deno.mkdir(join(folder.path, "audit.log"));
  const runner = new OperationRunner(contextOf(folder.path));
  let ran = false;
  const run = async () => {
    ran = true;
    return {};
  };
  await assert.rejects(
    runner.run(operation({ run }), { input: {} }),
    /Nothing was done, as the audit log .* cannot be written/,
  );
  assert.equal(ran, false);
});
