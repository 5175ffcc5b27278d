/** Two OPAQUE suites on one server: accounts move to the stronger one and never back, and no answer tells of them. */
import assert from "node:assert/strict";
import { SUITE_P256, SUITE_RISTRETTO255 } from "../../mod/base/opaque_suite.ts";
import { Client } from "../../mod/client/mod.ts";
import { login, suitesToOffer } from "../../mod/client/session.ts";
import { p256 } from "../../mod/client/opaque_p256.ts";
import type { ServerLink } from "../../mod/client/identity.ts";
import { BOTH_SUITES, loginAllowingP256, registerP256 } from "../support/p256_accounts.ts";
import { rejectsWith } from "../support/rejects.ts";
import { control } from "../support/steady_clients.ts";
import { tempFolder } from "../support/temp_folder.ts";
import { connectTo, newAccount, newDevice, PASSWORD, STRETCHED } from "../support/test_client.ts";
import { startTestServer, type TestServer } from "../support/test_server.ts";

const both = BOTH_SUITES;
const suiteId = SUITE_P256;

async function suiteOf(server: TestServer, userName: string): Promise<number | undefined> {
  return (await server.server.context.store.findAccountByName(userName))?.credential.suiteId;
}

Deno.test("an account of P-256 becomes one of ristretto255 at its first login with the client library", async () => {
  await using server = await startTestServer({ flags: both });
  await registerP256(server, "alice");
  assert.equal(await suiteOf(server, "alice"), SUITE_P256);
  await using state = await tempFolder();
  await using client = await Client.open({
    server: { hostname: server.hostname, port: server.port },
    state: state.path,
    identity: { fingerprint: server.fingerprint },
    accessToken: server.accessToken,
  });
  const credentials = { userName: "alice", password: PASSWORD };
  await rejectsWith(client.login(credentials), "loginFailed"); // nobody has allowed P-256
  await client.login({ ...credentials, allowP256: true });
  assert.equal(await suiteOf(server, "alice"), SUITE_RISTRETTO255);
  await client.logout();
  await client.login(credentials);
  await using other = await newDevice(server, "alice", STRETCHED);
  const { devices } = await other.connection.call("listDevices", {});
  assert.ok(
    devices.every(({ accountSignature }) => accountSignature.length > 0),
    "the account key came along",
  );
});

Deno.test("a client refuses a server that answers a weaker suite, and says so", async () => {
  await using server = await startTestServer({ flags: both });
  await using alice = await newAccount(server, "alice", STRETCHED);
  const offered: number[][] = [];
  await using link = await connectTo(server).then((real) => lying(real, offered));
  const request = { userName: "alice", password: PASSWORD, device: alice.own.device };
  await assert.rejects(
    login(link.value, { ...request, suiteSeen: SUITE_RISTRETTO255, allowP256: true }),
    /alice has logged in with ristretto255 before, and the server answered OPAQUE suite p256 .* weaker suite/s,
  );
  assert.deepEqual(offered, [[SUITE_RISTRETTO255]]);
});

/** A link whose server answers every LoginStart in P-256. */
function lying(real: ServerLink, offered: number[][]): { value: ServerLink } & AsyncDisposable {
  const connection = new Proxy(real.connection, {
    get(target, name) {
      if (name !== "call") return Reflect.get(target, name).bind(target);
      return (method: string, request: { suiteIds: number[] }) => {
        assert.equal(method, "loginStart");
        offered.push(request.suiteIds);
        return Promise.resolve({ handle: 1, suiteId: SUITE_P256, ke2: new Uint8Array(259) });
      };
    },
  });
  return {
    value: { ...real, connection },
    [Symbol.asyncDispose]: () => real.connection[Symbol.asyncDispose](),
  };
}

Deno.test("suitesToOffer() never goes below what was seen; without memory P-256 is only for who allows it", () => {
  assert.deepEqual(suitesToOffer({}), [1]);
  assert.deepEqual(suitesToOffer({ allowP256: true }), [1, 2]);
  assert.deepEqual(suitesToOffer({ suiteSeen: SUITE_P256 }), [2, 1]);
  assert.deepEqual(suitesToOffer({ suiteSeen: SUITE_RISTRETTO255, allowP256: true }), [1]);
});

Deno.test("the server gives no account a weaker suite, and answers P-256 for every name alike", async () => {
  await using server = await startTestServer({ flags: both });
  await registerP256(server, "weak");
  await using alice = await newAccount(server, "alice", STRETCHED);
  const { request } = await p256.startRecord(PASSWORD);
  const change = alice.connection.call("changePasswordStart", { suiteId, registrationRequest: request });
  await rejectsWith(change, "malformedRequest");
  const link = await connectTo(server);
  const lengths = new Set<string>();
  for (const userName of ["weak", "alice", "nobody"]) {
    const { ke1 } = await p256.startLogin("wrong");
    const answer = await link.connection.call("loginStart", { userName, suiteIds: [suiteId], ke1 });
    lengths.add(`${answer.suiteId} ${answer.ke2.length}`);
  }
  await link.connection[Symbol.asyncDispose]();
  assert.deepEqual([...lengths], ["2 259"]);
});

Deno.test("a server without P-256 refuses it, and does not start while there are accounts that need it", async () => {
  await using first = await startTestServer({ flags: both });
  await registerP256(first, "alice");
  const { dataDir } = first;
  await first.stop();
  await assert.rejects(startTestServer({ dataDir }), /1 account has records of it and would be locked out/);
  await using again = await startTestServer({ dataDir, flags: both });
  await loginAllowingP256(again, "alice");
  await again.stop();
  await using without = await startTestServer({ dataDir });
  await rejectsWith(registerP256(without, "bob"), "malformedRequest");
});

Deno.test("rotate opaque keeps suites apart: each has its newest setup, rotated by its name", async () => {
  await using server = await startTestServer({ flags: both });
  await registerP256(server, "alice");
  const weak = await control(server.dataDir, "rotate opaque", { suite: "p256" });
  assert.equal(weak["setupId"], 3);
  const strong = await control(server.dataDir, "rotate opaque");
  assert.equal(strong["setupId"], 4);
  const setups = strong["setups"] as { suite: string; accounts: number }[];
  assert.deepEqual(setups.map(({ suite }) => suite), ["ristretto255", "p256", "p256", "ristretto255"]);
  await assert.rejects(
    control(server.dataDir, "rotate opaque", { retire: 3, force: true }),
    /Setup 3 is the newest/,
  );
  await assert.rejects(
    control(server.dataDir, "rotate opaque", { suite: "p384" }),
    /one of ristretto255, p256/,
  );
  // With the old seed, as with ristretto255: the record under setup 2 still works, then the account moves.
  await loginAllowingP256(server, "alice");
  assert.deepEqual(
    (await server.server.context.store.accountsBySetup()).filter(({ accounts }) => accounts > 0),
    [{ setupId: 4, accounts: 1 }],
  );
});
