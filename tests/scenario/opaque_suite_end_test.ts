/** The end of the OPAQUE suite P-256 on a server: setups retired, the option taken out; nobody is locked out unnoticed. */
import assert from "node:assert/strict";
import { join } from "node:path";
import type { JsonObject } from "../../mod/admin/operations.ts";
import { runStopped } from "../../mod/admin/operations_stopped.ts";
import { rotateOpaque } from "../../mod/admin/rotate_opaque.ts";
import { register } from "../../mod/client/session.ts";
import { diskFile } from "../../mod/config/disk_file.ts";
import { load } from "../../mod/config/load.ts";
import { BOTH_SUITES, loginAllowingP256, registerP256 } from "../support/p256_accounts.ts";
import { rejectsWith } from "../support/rejects.ts";
import { control } from "../support/steady_clients.ts";
import { connectTo, PASSWORD } from "../support/test_client.ts";
import { startTestServer, type TestServer } from "../support/test_server.ts";
import { tempFolder } from "../support/temp_folder.ts";

function rotate(server: TestServer, input: Record<string, string | number | boolean> = {}) {
  return control(server.dataDir, "rotate opaque", input);
}

async function accountsBySetup({ server }: TestServer): Promise<[number, number][]> {
  const accounts = await server.context.store.accountsBySetup();
  return accounts.map((each) => [each.setupId, each.accounts]);
}

/** As an operator does it on the folder of a stopped server, whose configuration does not have P-256. */
function rotateStopped(dataDir: string, input: JsonObject): Promise<JsonObject> {
  const { settings } = load({ env: {}, flags: { "data-dir": dataDir }, readFile: diskFile });
  const deviceRevokedNotice = () => assert.fail("nobody is revoked");
  return runStopped(rotateOpaque, { settings, input, deviceRevokedNotice });
}

/** A reset, and the registration of the same account by its invitation. */
async function comesBack(server: TestServer, userName: string): Promise<void> {
  const { invitation } = await control(server.dataDir, "user reset", { user: userName });
  const link = await connectTo(server, { accessToken: "" });
  await register(link, { userName, password: PASSWORD, invitation: String(invitation) });
  await link.connection[Symbol.asyncDispose]();
  await loginAllowingP256(server, userName);
}

Deno.test("retiring a setup of p256 is refused while accounts are on it, and counts and names them", async () => {
  await using server = await startTestServer({ flags: BOTH_SUITES });
  for (const name of ["alice", "bob", "carol"]) await registerP256(server, name);
  await rotate(server, { suite: "p256" });
  await loginAllowingP256(server, "carol");
  assert.deepEqual(await accountsBySetup(server), [[1, 1], [2, 2], [3, 0]]);
  await assert.rejects(
    rotate(server, { retire: 2 }),
    /would lock out 2 accounts that have not logged in since: alice, bob\..*nothing was changed/,
  );
  await loginAllowingP256(server, "alice"); // nothing was
  const would = await rotate(server, { retire: 2, force: true, dryRun: true });
  assert.deepEqual([would["lockedOut"], would["lockedOutCount"]], [["bob"], 1]);
  assert.deepEqual(would["steps"], ["setup 2 is retired: its 1 record logs nobody in any more"]);
  await loginAllowingP256(server, "bob");
  const did = await rotate(server, { retire: 2 });
  assert.deepEqual([did["lockedOut"], did["lockedOutCount"]], [[], 0]);
});

Deno.test("after a forced retirement of p256 an account is answered like nobody, until a reset brings it back", async () => {
  await using server = await startTestServer({ flags: BOTH_SUITES });
  for (const name of ["alice", "bob"]) await registerP256(server, name);
  await rotate(server, { suite: "p256" });
  const did = await rotate(server, { retire: 2, force: true });
  assert.deepEqual([did["lockedOut"], did["lockedOutCount"]], [["alice", "bob"], 2]);
  assert.match((did["notes"] as string[]).join("\n"), /Locked out: alice, bob .*user reset NAME/s);
  const refused = await rejectsWith(loginAllowingP256(server, "alice"), "loginFailed");
  assert.equal(
    refused.message,
    (await rejectsWith(loginAllowingP256(server, "nobody"), "loginFailed")).message,
  );
  const shown = await control(server.dataDir, "user show", { user: "alice" });
  assert.equal(shown["canLogIn"], false);
  await registerP256(server, "dave"); // the newest setup of the suite goes on
  await loginAllowingP256(server, "dave");
  await comesBack(server, "alice");
  assert.deepEqual(await accountsBySetup(server), [[1, 2], [2, 1], [3, 0]]);
});

Deno.test("reload names a changed opaque_suites as waiting for a restart, and both suites go on", async () => {
  await using folder = await tempFolder();
  const config = join(folder.path, "qpq-server.toml");
  const write = (suites: string) => Deno.writeTextFile(config, `opaque_suites = ${suites}\n`);
  await write('["ristretto255", "p256"]');
  await using server = await startTestServer({ flags: { config } });
  await registerP256(server, "alice");
  assert.deepEqual((await control(server.dataDir, "reload"))["restart"], []);
  await write('["ristretto255"]');
  for (let time = 0; time < 2; time++) {
    const { applied, restart, notes } = await control(server.dataDir, "reload");
    assert.deepEqual([applied, restart], [[], ["opaque_suites"]]);
    assert.match((notes as string[]).join("\n"), /Restart the server for opaque_suites/);
  }
  await loginAllowingP256(server, "alice");
  await write('["p256"]');
  await assert.rejects(control(server.dataDir, "reload"), /opaque_suites .*ristretto255/);
});

Deno.test("a start without p256 says who is in the way; the way out that it names works, step by step", async () => {
  await using folder = await tempFolder();
  const dataDir = folder.path;
  const first = await startTestServer({ dataDir, flags: BOTH_SUITES });
  for (const name of ["alice", "bob"]) await registerP256(first, name);
  await first.stop();
  const refused = /without p256 in opaque_suites: 2 accounts have records .*retire its setup by force/;
  await assert.rejects(startTestServer({ dataDir }), refused);
  const stopped = (input: JsonObject) => rotateStopped(dataDir, input);
  await assert.rejects(
    stopped({ retire: 2, force: true }),
    /Setup 2 is the newest.*make another with `qpq-server rotate opaque` first/,
  );
  await assert.rejects(stopped({ suite: "p256" }), /opaque_suites has no p256/);
  assert.equal((await stopped({}))["setupId"], 3);
  await assert.rejects(stopped({ retire: 2 }), /would lock out 2 accounts .*alice, bob/);
  assert.equal((await stopped({ retire: 2, force: true }))["lockedOutCount"], 2);
  await using server = await startTestServer({ dataDir });
  assert.deepEqual(await accountsBySetup(server), [[1, 0], [2, 2], [3, 0]]);
  await rejectsWith(registerP256(server, "carol"), "malformedRequest");
  const login = await rejectsWith(loginAllowingP256(server, "alice"), "loginFailed");
  assert.match(login.message, /the user name or the password is wrong.*no P-256/);
  await comesBack(server, "alice");
});
