/** doctor's findings on a folder: each thing that can be wrong is named, with what to do. */
import assert from "node:assert/strict";
import { join } from "node:path";
import type { JsonObject } from "../../../mod/admin/control.ts";
import { doctor, examineWithout } from "../../../mod/admin/doctor.ts";
import type { LiveServer } from "../../../mod/admin/operations_live.ts";
import { type AdminContext, noStep } from "../../../mod/admin/operations.ts";
import { defaultSettings, type Secret, type Settings } from "../../../mod/config/options.ts";
import { openStoreTellingKey } from "../../../mod/store/open.ts";
import { makeCa, makeLeaf } from "../../../mod/transport/tls.ts";
import { FakeClock } from "../../support/fake_clock.ts";
import { tempFolder } from "../../support/temp_folder.ts";

const KEY = "0f1e2d3c4b5a69788796a5b4c3d2e1f0".repeat(2);
const OTHER_KEY = "1234567890abcdef0fedcba987654321".repeat(2);
const TOKEN = "IzGg3rS9cQyZpU1bZ0m6m5Cq5iA4c0xv";
const DAY_MS = 86_400_000;

type Row = { name: string; status: string; found: string; remedy?: string };

/** A data folder that a first start has made, and doctor on it. */
class Patient implements AsyncDisposable {
  readonly clock = new FakeClock({ now: Date.now() });
  readonly #folder: Awaited<ReturnType<typeof tempFolder>>;
  settings: Settings;
  server: LiveServer | null = null;

  private constructor(folder: Awaited<ReturnType<typeof tempFolder>>) {
    this.#folder = folder;
    const secret = (name: string, line: string): Secret => ({
      lines: [line],
      from: "managed",
      path: join(folder.path, "data", "secrets", name),
    });
    this.settings = {
      ...defaultSettings(),
      dataDir: join(folder.path, "data"),
      dbKey: secret("db-key", KEY),
      authToken: secret("auth-token", TOKEN),
    };
  }

  static async make(): Promise<Patient> {
    const patient = new Patient(await tempFolder());
    for (const name of ["secrets", "tls", "blobs", "backups"]) {
      await Deno.mkdir(patient.path(name), { recursive: true, mode: 0o700 });
    }
    await Deno.chmod(patient.path(""), 0o700);
    await patient.write("secrets/db-key", `${KEY}\n`);
    await patient.write("secrets/auth-token", `${TOKEN}\n`);
    await patient.certificate(90 * DAY_MS);
    const { store } = await patient.open();
    await store.close();
    return patient;
  }

  path(...names: string[]): string {
    return join(this.settings.dataDir, ...names);
  }

  async write(name: string, text: string): Promise<void> {
    await Deno.writeTextFile(this.path(name), text, { mode: 0o600 });
  }

  /** A managed certificate that ends after `lifeMs`. */
  async certificate(lifeMs: number, names: readonly string[] = ["localhost"]): Promise<void> {
    const now = this.clock.now();
    const ca = await makeCa({ commonName: "CA", now: Math.min(now, now + lifeMs - DAY_MS) });
    const leaf = await makeLeaf({
      ca,
      names,
      now: Math.min(now, now + lifeMs - DAY_MS),
      lifeMs: Math.max(lifeMs, DAY_MS),
    });
    await this.write("tls/server.pem", leaf.certificatePem);
    await this.write("tls/server.key", leaf.privateKeyPem);
    await this.write("tls/ca.pem", ca.certificatePem);
    this.settings = { ...this.settings, tlsNames: names };
  }

  open(keys: readonly string[] = this.settings.dbKey!.lines) {
    return openStoreTellingKey({ backend: "sqlcipher", dataDir: this.settings.dataDir, keys });
  }

  async examine(input: JsonObject = {}): Promise<Map<string, Row>> {
    const opened: Awaited<ReturnType<Patient["open"]>>[] = [];
    const open = async () => opened[0] ?? (opened[0] = await this.open());
    const context: AdminContext = {
      via: this.server ? "running" : "stopped",
      clock: this.clock,
      settings: this.settings,
      store: async () => (await open()).store,
      storeKey: async () => (await open()).key,
      deviceRevokedNotice: () => assert.fail("doctor revokes nothing"),
      server: this.server,
      step: noStep,
    };
    const result = await doctor.run(context, input, () => {});
    await opened[0]?.store.close();
    const rows = result["checks"] as unknown as Row[];
    assert.equal(rows.length, Number(result["ok"]) + Number(result["warn"]) + Number(result["fail"]));
    for (const { name, status, remedy } of rows) assert.equal(remedy === undefined, status === "ok", name);
    return new Map(rows.map((row) => [row.name, row]));
  }

  /** One check. */
  async check(name: string, input: JsonObject = {}): Promise<Row> {
    const row = (await this.examine(input)).get(name);
    assert.ok(row, `doctor has no check ${name}`);
    return row;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#folder[Symbol.asyncDispose]();
  }
}

/** The status of a check, and that what was found and what to do are told. */
function finds(row: Row, status: string, found: RegExp, remedy?: RegExp): void {
  assert.equal(row.status, status, `${row.name}: ${row.found}`);
  assert.match(row.found, found);
  if (remedy) assert.match(row.remedy!, remedy);
}

Deno.test("doctor finds nothing broken in what a first start makes", async () => {
  await using patient = await Patient.make();
  const rows = [...(await patient.examine()).values()].filter(({ name }) => !name.startsWith("disk"));
  const broken = rows.filter(({ status }) => status === "fail");
  assert.deepEqual(broken, []);
  finds(await patient.check("database"), "ok", /sqlcipher, .*schema \d+; all of it is sound/);
  finds(await patient.check("database", { quick: true }), "ok", /not opened \(--quick\)/);
});

Deno.test("doctor tells problems of the configuration that it was given", async () => {
  await using patient = await Patient.make();
  const row = await patient.check("configuration", {
    problems: "listen: is no address\nlog: cannot be used",
  });
  finds(row, "fail", /listen: is no address; log: cannot be used/, /does not start/);
});

Deno.test("doctor finds secrets that others can read: a warning, in production a failure", {
  ignore: Deno.build.os === "windows",
}, async () => {
  await using patient = await Patient.make();
  await Deno.chmod(patient.path("secrets/auth-token"), 0o644);
  const remedy = /chmod 600 .*auth-token.*rotate/;
  finds(await patient.check("permissions"), "warn", /auth-token \(0644\)/, remedy);
  patient.settings = { ...patient.settings, production: true };
  finds(await patient.check("permissions"), "fail", /auth-token \(0644\)/, remedy);
  await Deno.chmod(patient.path("secrets/auth-token"), 0o600);
  await Deno.chmod(patient.path("blobs"), 0o755);
  finds(await patient.check("permissions"), "warn", /blobs \(0755\)/, /chmod 700 .*blobs/);
});

Deno.test("doctor finds files that the server's user cannot read", {
  ignore: Deno.build.os === "windows" || Deno.uid() !== 0,
}, async () => {
  await using patient = await Patient.make();
  await Deno.chown(patient.path("secrets/db-key"), 65534, 65534);
  finds(await patient.check("owners"), "fail", /not .*db-key/, /chown/);
});

Deno.test("doctor judges the database key: strength, place, and more lines", async () => {
  await using patient = await Patient.make();
  finds(await patient.check("database key"), "ok", /^256 random bits$/);
  finds(await patient.check("key's place"), "warn", /inside the data folder/, /db_key_file/);
  const production = { ...patient.settings, production: true };
  patient.settings = production;
  finds(await patient.check("key's place"), "fail", /inside the data folder/);
  patient.settings = { ...production, allowKeyInDataDir: true };
  finds(await patient.check("key's place"), "ok", /as allow_key_in_data_dir says/);
  const withKey = (line: string): Settings => ({
    ...production,
    dbKey: { lines: [line], from: "environment", path: null },
  });
  const quick = { quick: true };
  patient.settings = withKey("summer2026");
  finds(await patient.check("database key", quick), "warn", /passphrase of about \d+ bits/, /rotate db-key/);
  patient.settings = withKey("a".repeat(64));
  finds(await patient.check("database key", quick), "fail", /not random/);
  patient.settings = withKey("correct-horse-Battery-staple-47-orbit");
  finds(await patient.check("database key", quick), "ok", /passphrase of about \d+ bits/);
  finds(await patient.check("key's place", quick), "ok", /from the environment/);
  patient.settings = { ...production, dbKey: null, allowPlaintextStore: true };
  finds(await patient.check("database key", quick), "fail", /unencrypted/, /rotate db-key/);
});

Deno.test("doctor judges the access token", async () => {
  await using patient = await Patient.make();
  finds(await patient.check("access token"), "ok", /about 1\d\d bits/);
  const quick = { quick: true };
  patient.settings = {
    ...patient.settings,
    authToken: { lines: ["letmein"], from: "environment", path: null },
  };
  finds(await patient.check("access token", quick), "warn", /can be guessed/, /--overlap 0/);
  patient.settings = { ...patient.settings, authToken: null, allowNoAuthToken: true };
  finds(await patient.check("access token", quick), "warn", /whoever reaches the port/);
});

Deno.test("doctor judges the certificate: dates, names, key, and files that are gone", async () => {
  await using patient = await Patient.make();
  finds(await patient.check("certificate"), "ok", /chain and key fit/);
  finds(await patient.check("certificate's end"), "ok", /in 8\d days/);
  const quick = { quick: true };
  await patient.certificate(10 * DAY_MS);
  finds(await patient.check("certificate's end", quick), "warn", /in \d+ days/, /renewed by itself/);
  await patient.certificate(-DAY_MS);
  finds(await patient.check("certificate's end", quick), "fail", /it expired on/, /rotate tls/);
  await patient.certificate(90 * DAY_MS);
  patient.settings = { ...patient.settings, tlsNames: ["chat.example.org"] };
  finds(
    await patient.check("certificate's names", quick),
    "warn",
    /chat\.example\.org is not among localhost/,
  );
  const other = await makeCa({ commonName: "x", now: patient.clock.now() });
  await patient.write("tls/server.key", other.privateKeyPem);
  finds(await patient.check("certificate", quick), "fail", /does not belong/, /rotate tls/);
  await patient.write("tls/server.pem", "nonsense");
  finds(await patient.check("certificate", quick), "fail", /./, /rotate tls/);
  await Deno.remove(patient.path("tls/server.pem"));
  finds(await patient.check("certificate", quick), "fail", /there is no file .*server\.pem/);
});

Deno.test("doctor warns of a certificate that signs itself", async () => {
  await using patient = await Patient.make();
  const { certificatePem, privateKeyPem } = await makeCa({ commonName: "me", now: patient.clock.now() });
  await patient.write("own.pem", certificatePem);
  await patient.write("own.key", privateKeyPem);
  patient.settings = {
    ...patient.settings,
    tlsCert: patient.path("own.pem"),
    tlsKey: patient.path("own.key"),
  };
  finds(await patient.check("certificate's issuer", { quick: true }), "warn", /self-signed/);
});

Deno.test("doctor finds a damaged database, one with another key, and none", async () => {
  await using patient = await Patient.make();
  const path = patient.path("qpq.db");
  const whole = await Deno.readFile(path);
  const damaged = whole.slice();
  for (let i = 20_000; i < 40_000; i++) damaged[i]! ^= 0xff;
  await Deno.writeFile(path, damaged);
  finds(await patient.check("database"), "fail", /./);
  await Deno.writeFile(path, whole);
  patient.settings = { ...patient.settings, dbKey: { ...patient.settings.dbKey!, lines: [OTHER_KEY] } };
  finds(await patient.check("database"), "fail", /key is wrong/);
  await Deno.remove(path);
  finds(await patient.check("database"), "warn", /there is none yet/);
});

Deno.test("doctor finds what an interrupted rotation has left, and a key that waits for its turn", async () => {
  await using patient = await Patient.make();
  await patient.write("qpq.db.old-1", "an old store");
  await patient.write("qpq.db.rekeying", "half of a new one");
  finds(
    await patient.check("leftovers", { quick: true }),
    "warn",
    /a conversion, or an operation that was interrupted.*qpq\.db\.(old-1|rekeying).*qpq\.db\.(old-1|rekeying)/,
  );
  patient.settings = { ...patient.settings, dbKey: { ...patient.settings.dbKey!, lines: [OTHER_KEY, KEY] } };
  finds(await patient.check("key in use"), "warn", /under a later line/, /rotate db-key, or a restart/);
});

Deno.test("doctor tells when an OPAQUE setup can be retired", async () => {
  await using patient = await Patient.make();
  const { store } = await patient.open();
  for (let i = 0; i < 2; i++) {
    await store.addOpaqueSetup({ suiteId: 1, secret: new Uint8Array(128), createdAt: patient.clock.now() });
  }
  await store.close();
  finds(await patient.check("OPAQUE setups"), "warn", /no account is left under setup 1/, /--retire 1/);
});

Deno.test("doctor judges the clock: years, and data from the future", async () => {
  await using patient = await Patient.make();
  finds(await patient.check("clock", { quick: true }), "ok", /^20\d\d-/);
  const start = patient.clock.now();
  const at = async (now: number) => {
    Object.defineProperty(patient, "clock", { value: new FakeClock({ now }) });
    return await patient.check("clock", { quick: true });
  };
  finds(await at(0), "fail", /1970/, /NTP/);
  finds(await at(start - 7 * DAY_MS), "fail", /the data was changed 7 days after that/);
});

Deno.test("doctor judges free space by the reserve, and times the disk without leaving anything", async () => {
  await using patient = await Patient.make();
  finds(await patient.check("disk space", { quick: true }), "ok", /free of/);
  finds(
    await patient.check("disk speed", { quick: true }),
    (await patient.check("disk speed")).status,
    /an fsync takes/,
  );
  patient.settings = { ...patient.settings, diskReserveBytes: Number.MAX_SAFE_INTEGER };
  finds(await patient.check("disk space", { quick: true }), "fail", /nothing new is stored/);
  const names = [...Deno.readDirSync(patient.settings.dataDir)].map(({ name }) => name);
  assert.deepEqual(names.filter((name) => name.startsWith(".doctor")), []);
});

Deno.test("doctor tells of the running server: health, connections, one address, UDP buffers", async () => {
  await using patient = await Patient.make();
  const vitals = { udpBufferBytes: 8 << 20, connections: 100, connectionsFromOneAddress: 40 };
  const live = {
    vitals: () => vitals,
    health: async () => [{ name: "store", ok: true }],
    configurationProblems: async () => [] as string[],
    expiryPausedBecause: null as string | null,
  };
  patient.server = live as unknown as LiveServer;
  const quick = { quick: true };
  finds(await patient.check("client addresses", quick), "ok", /at most 40 %/);
  finds(await patient.check("UDP buffers", quick), "ok", /8\.0 MiB/);
  vitals.connectionsFromOneAddress = 95;
  vitals.udpBufferBytes = 212_992;
  vitals.connections = 100;
  finds(await patient.check("client addresses", quick), "warn", /95 % .*one/, /limits\.shared_addresses/);
  finds(await patient.check("UDP buffers", quick), "warn", /208\.0 KiB of 4\.0 MiB/, /net\.core\.rmem_max/);
  vitals.connections = 19_500;
  finds(await patient.check("connections", quick), "warn", /19500 of 20000/, /limits\.connections_max/);
  live.health = async () => [{ name: "store", ok: false, reason: "the disk is nearly full" }];
  finds(await patient.check("health", quick), "fail", /store: the disk is nearly full/);
  live.configurationProblems = async () => ["limits.device_max: unknown option"];
  finds(await patient.check("configuration", quick), "fail", /device_max/, /goes on with the old one/);
  live.expiryPausedBecause = "the clock was moved by 30 h";
  finds(await patient.check("clock", quick), "warn", /nothing expires: the clock was moved/, /expiry resume/);
});

Deno.test("doctor finds the socket of a server that was killed, and a last backup that is old", async () => {
  await using patient = await Patient.make();
  await patient.write("control.sock", "");
  finds(await patient.check("server", { quick: true }), "warn", /was killed/, /next start replaces/);
  finds(await patient.check("last backup", { quick: true }), "warn", /there is none/, /backup create/);
});

Deno.test("examineWithout() checks what it can when a server does not answer", async () => {
  await using patient = await Patient.make();
  const given = {
    clock: patient.clock,
    settings: patient.settings,
    configuration: { problems: [], warnings: [] },
    progress: () => {},
  };
  const result = await examineWithout("The server did not answer", given);
  const rows = result["checks"] as unknown as Row[];
  finds(rows[0]!, "fail", /did not answer/, /restart it/);
  assert.ok(rows.some(({ name }) => name === "certificate"));
});
