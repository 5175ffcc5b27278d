/** KeyPackages: what is refused at upload, and claims over a real store. */
import assert from "node:assert/strict";
import "@noble/hashes/sha2.js"; // ts-mls imports it without declaring it
import { getCiphersuiteFromName, getCiphersuiteImpl } from "ts-mls";
import { encodeKeyPackage, type KeyPackage, signKeyPackage } from "ts-mls/keyPackage.js";
import { signLeafNodeKeyPackage } from "ts-mls/leafNode.js";
import fc from "fast-check";
import { concat, copy, fromHex, sha256, utf8 } from "../../../mod/base/bytes.ts";
import { QpqError } from "../../../mod/base/errors.ts";
import { type AccountId, type DeviceId, randomId } from "../../../mod/base/ids.ts";
import {
  MLS_SUITE_X25519,
  MLS_SUITE_XWING,
  MLS_SUITES,
  type MlsSuite,
} from "../../../mod/base/mls_suites.ts";
import { type KeyPackageOwner, KeyPackages, LIFETIME_MAX_MS } from "../../../mod/delivery/keypackages.ts";
import { validateKeyPackage } from "../../../mod/delivery/keypackages.ts";
import { openStore } from "../../../mod/store/open.ts";
import type { Store } from "../../../mod/store/store.ts";
import { FakeClock } from "../../support/fake_clock.ts";
import { rejectsWith } from "../../support/rejects.ts";

const HOUR_MS = 3_600_000;
const NOW = Date.UTC(2026, 0, 1);

/** A device with its MLS signature key. */
interface Owner extends KeyPackageOwner {
  readonly signKey: Uint8Array;
}

/** A package whose credential names a domain. */
function withDomain(owner: Owner, domain: string): Wish {
  const identity = concat(fromHex(owner.accountId), fromHex(owner.deviceId), utf8(domain));
  return { leaf: () => ({ credential: { credentialType: "basic", identity } }) };
}

async function implementationOf(suite: MlsSuite) {
  return await getCiphersuiteImpl(getCiphersuiteFromName(MLS_SUITES[suite].name));
}

async function makeOwner(accountId: AccountId = randomId()): Promise<Owner> {
  const { signature } = await implementationOf(MLS_SUITE_X25519);
  const { publicKey, signKey } = await signature.keygen();
  return { accountId, deviceId: randomId<DeviceId>(), deviceKey: publicKey, signKey };
}

/** What a test wants different from a good package; both signatures are made after it. */
interface Wish {
  suite?: MlsSuite;
  leaf?: (leaf: KeyPackage["leafNode"]) => Partial<KeyPackage["leafNode"]>;
  whole?: (keyPackage: KeyPackage) => Partial<KeyPackage>;
  signKey?: Uint8Array;
}

async function makeKeyPackage(owner: Owner, wish: Wish = {}): Promise<Uint8Array> {
  const suite = await implementationOf(wish.suite ?? MLS_SUITE_X25519);
  const publicKey = async () => {
    const pair = await suite.hpke.generateKeyPair();
    return await suite.hpke.exportPublicKey(pair.publicKey);
  };
  const signKey = wish.signKey ?? owner.signKey;
  const leaf = {
    leafNodeSource: "key_package" as const,
    hpkePublicKey: await publicKey(),
    signaturePublicKey: owner.deviceKey,
    credential: {
      credentialType: "basic" as const,
      identity: concat(fromHex(owner.accountId), fromHex(owner.deviceId)),
    },
    capabilities: {
      versions: ["mls10" as const],
      ciphersuites: [suite.name],
      extensions: [],
      proposals: [],
      credentials: ["basic" as const],
    },
    lifetime: { notBefore: BigInt(NOW / 1000), notAfter: BigInt((NOW + LIFETIME_MAX_MS) / 1000) },
    extensions: [],
    signature: new Uint8Array(),
  };
  const wanted = { ...leaf, ...wish.leaf?.(leaf) } as typeof leaf;
  const leafNode = await signLeafNodeKeyPackage(wanted, signKey, suite.signature);
  const keyPackage = {
    version: "mls10" as const,
    cipherSuite: suite.name,
    initKey: await publicKey(),
    leafNode,
    extensions: [],
    signature: new Uint8Array(),
  } as KeyPackage;
  return encodeKeyPackage(
    await signKeyPackage({ ...keyPackage, ...wish.whole?.(keyPackage) }, signKey, suite.signature),
  );
}

/** Judged for `owner` at NOW. */
function validate(owner: Owner, bytes: Uint8Array) {
  return validateKeyPackage(bytes, { ...owner, now: NOW, lifetimeMaxMs: LIFETIME_MAX_MS });
}

async function refused(owner: Owner, bytes: Uint8Array, reason: RegExp): Promise<void> {
  const error = await rejectsWith(validate(owner, bytes), "keyPackageInvalid");
  assert.match(error.message, reason);
}

/** A lifetime from and to so many ms from NOW. */
function lifetime(from: number, to: number): Wish {
  const seconds = (ms: number) => BigInt((NOW + ms) / 1000);
  return { leaf: () => ({ lifetime: { notBefore: seconds(from), notAfter: seconds(to) } }) };
}

Deno.test("validateKeyPackage() takes good packages of both suites and names them as RFC 9420 does", async () => {
  const owner = await makeOwner();
  for (const suite of [MLS_SUITE_X25519, MLS_SUITE_XWING] as const) {
    const bytes = await makeKeyPackage(owner, { suite });
    const valid = await validate(owner, bytes);
    assert.equal(valid.suite, suite);
    assert.equal(valid.notAfter, NOW + LIFETIME_MAX_MS);
    // RefHash of §5.2, spelled out: both strings have two-byte or one-byte lengths.
    const label = utf8("MLS 1.0 KeyPackage Reference");
    const length = Uint8Array.of(0x40 | bytes.length >> 8, bytes.length & 255);
    const input = concat(Uint8Array.of(label.length), label, length, bytes);
    const digest = suite === MLS_SUITE_X25519
      ? await sha256(input)
      : new Uint8Array(await crypto.subtle.digest("SHA-512", input));
    assert.deepEqual(valid.ref, digest);
  }
});

Deno.test("validateKeyPackage() refuses packages of another device or account", async () => {
  const owner = await makeOwner();
  const bytes = await makeKeyPackage(owner);
  await refused({ ...owner, deviceId: randomId() }, bytes, /credential is not the device's/);
  await refused({ ...owner, accountId: randomId() }, bytes, /credential is not the device's/);
  const other = await makeOwner();
  await refused({ ...owner, deviceKey: other.deviceKey }, bytes, /key is not the device's/);
});

Deno.test("validateKeyPackage() takes credentials that name the server's own domain or none", async () => {
  const owner = await makeOwner();
  const accepts = async (named: string, domain: string) => {
    const bytes = await makeKeyPackage(owner, withDomain(owner, named));
    const expected = { ...owner, now: NOW, lifetimeMaxMs: LIFETIME_MAX_MS, domain };
    return await validateKeyPackage(bytes, expected).then(() => true, () => false);
  };
  assert.ok(await accepts("", "a.test"));
  assert.ok(await accepts("a.test", "a.test"));
  for (const [named, domain] of [["b.test", "a.test"], ["a.test", ""], ["a.tes", "a.test"]] as const) {
    assert.ok(!await accepts(named, domain), `${named} on ${domain}`);
  }
});

Deno.test("validateKeyPackage() refuses credentials that are not basic", async () => {
  const owner = await makeOwner();
  const credential = { credentialType: "x509" as const, certificates: [utf8("certificate")] };
  await refused(owner, await makeKeyPackage(owner, { leaf: () => ({ credential }) }), /not a basic one/);
});

Deno.test("validateKeyPackage() refuses signatures by another key", async () => {
  const owner = await makeOwner();
  const { signKey } = await makeOwner();
  await refused(owner, await makeKeyPackage(owner, { signKey }), /leaf's signature/);
});

Deno.test("validateKeyPackage() refuses a whole that was signed by another key than its leaf", async () => {
  const owner = await makeOwner();
  const bytes = copy(await makeKeyPackage(owner));
  bytes[bytes.length - 1]! ^= 1; // the last byte of the outer signature
  await refused(owner, bytes, /its signature/);
});

Deno.test("validateKeyPackage() judges the lifetime", async () => {
  const owner = await makeOwner();
  const bad: [number, number, RegExp][] = [
    [-HOUR_MS, 0, /expired/],
    [-2 * HOUR_MS, -HOUR_MS, /expired/],
    [HOUR_MS + 1000, 2 * HOUR_MS, /not begun/],
    [0, LIFETIME_MAX_MS + HOUR_MS + 1000, /too long/],
  ];
  for (const [from, to, reason] of bad) {
    await refused(owner, await makeKeyPackage(owner, lifetime(from, to)), reason);
  }
  const endless = { leaf: () => ({ lifetime: { notBefore: 0n, notAfter: 9223372036854775807n } }) };
  await refused(owner, await makeKeyPackage(owner, endless), /too long/);
  const good: [number, number][] = [[HOUR_MS, 2 * HOUR_MS], [-HOUR_MS, LIFETIME_MAX_MS], [-HOUR_MS, 1000]];
  for (const [from, to] of good) await validate(owner, await makeKeyPackage(owner, lifetime(from, to)));
});

Deno.test("validateKeyPackage() refuses an init key that is the leaf's, and keys of a wrong length", async () => {
  const owner = await makeOwner();
  const same: Wish = { whole: ({ leafNode }) => ({ initKey: leafNode.hpkePublicKey }) };
  await refused(owner, await makeKeyPackage(owner, same), /are the same/);
  const short: Wish = { whole: () => ({ initKey: new Uint8Array(31) }) };
  await refused(owner, await makeKeyPackage(owner, short), /31 bytes/);
});

Deno.test("validateKeyPackage() refuses other suites, and a leaf that does not support its own", async () => {
  const owner = await makeOwner();
  const cipherSuite = "MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519" as const;
  await refused(owner, await makeKeyPackage(owner, { whole: () => ({ cipherSuite }) }), /not supported/);
  const capabilities = { versions: ["mls10" as const], ciphersuites: [cipherSuite], extensions: [] };
  const leaf = () => ({ capabilities: { ...capabilities, proposals: [], credentials: ["basic" as const] } });
  await refused(owner, await makeKeyPackage(owner, { leaf }), /its own suite/);
});

Deno.test("validateKeyPackage() refuses truncated, extended and re-encoded bytes", async () => {
  const owner = await makeOwner();
  const bytes = await makeKeyPackage(owner);
  for (let length = 0; length < bytes.length; length++) {
    await refused(owner, bytes.subarray(0, length), /does not decode/);
  }
  await refused(owner, concat(bytes, Uint8Array.of(0)), /does not decode/);
  await refused(owner, concat(fromHex("00010005"), bytes), /./); // an MLSMessage
  // The length of the init key, 32, in two bytes instead of one: another ref for the same content.
  await refused(owner, concat(bytes.subarray(0, 4), fromHex("4020"), bytes.subarray(5)), /does not decode/);
  await refused(owner, new Uint8Array(8193), /8193 bytes/);
});

Deno.test("validateKeyPackage() throws nothing but keyPackageInvalid for damaged and random bytes", async () => {
  const owner = await makeOwner();
  const good = await makeKeyPackage(owner);
  const damaged = fc.tuple(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 })).map(([at, change]) => {
    const bytes = copy(good);
    bytes[at]! ^= change;
    return bytes;
  });
  const bytes = fc.oneof(damaged, fc.uint8Array({ maxLength: 400 }));
  await fc.assert(
    fc.asyncProperty(bytes, async (input) => {
      await assert.rejects(
        validate(owner, input),
        (error) => error instanceof QpqError && error.code === "keyPackageInvalid",
      );
    }),
    { numRuns: 300 },
  );
});

/** A store with accounts whose devices have logged in, and KeyPackages over it. */
class World implements AsyncDisposable {
  readonly clock = new FakeClock({ now: NOW });
  readonly keyPackages: KeyPackages;

  private constructor(readonly store: Store, readonly dataDir: string, domain: string) {
    this.keyPackages = new KeyPackages({
      store,
      clock: this.clock,
      perSuiteMax: 3,
      lowBelow: 2,
      lowNotice: (suite, count) => this.notice(`low ${suite} ${count}`),
      domain,
    });
  }

  static async open(domain = ""): Promise<World> {
    const dataDir = await Deno.makeTempDir({ prefix: "qpq-keypackages-" });
    const store = await openStore({ backend: "sqlcipher", dataDir, keys: ["key of tests"] });
    return new World(store, dataDir, domain);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.store.close();
    await Deno.remove(this.dataDir, { recursive: true });
  }

  notice(text: string) {
    return { entryId: randomId<never>(), payload: utf8(text), expiresAt: NOW + LIFETIME_MAX_MS };
  }

  async account(userName: string): Promise<AccountId> {
    const created = await this.store.createAccount({
      accountId: randomId<AccountId>(),
      userName,
      credential: { suiteId: 1, setupId: 1, record: new Uint8Array(192), wrappedAccountKey: utf8("wrapped") },
      accountKey: new Uint8Array(32),
      invitationSha256: null,
      now: NOW,
    });
    assert.ok(created.status === "created");
    return created.accountId;
  }

  async device(accountId: AccountId): Promise<Owner & { deviceSigned: boolean }> {
    const owner = await makeOwner(accountId);
    await this.store.createSession({
      ...owner,
      sessionId: randomId(),
      deviceName: "phone",
      devicesMax: 10,
      deviceAddedNotice: this.notice("added"),
      now: NOW,
    });
    await this.store.signDevice(accountId, owner.deviceId, new Uint8Array(64));
    return { ...owner, deviceSigned: true };
  }

  async upload(
    owner: Owner & { deviceSigned: boolean },
    count: number,
    options: { lastResort?: boolean; domain?: string } = {},
  ) {
    const { lastResort = false, domain = "" } = options;
    const wish = withDomain(owner, domain);
    const made = await Promise.all(Array.from({ length: count }, () => makeKeyPackage(owner, wish)));
    return await this.keyPackages.upload(owner, made.map((bytes) => ({ bytes, lastResort })));
  }

  claim(
    target: { userName: string } | { accountId: AccountId },
    options: { lastResortOnly?: boolean; fromPeer?: boolean } = {},
  ) {
    const { lastResortOnly, fromPeer = false } = options;
    const mayTakeFresh = () => !lastResortOnly;
    return this.keyPackages.claim({ target, suite: MLS_SUITE_X25519, devices: null, mayTakeFresh, fromPeer });
  }
}

Deno.test("upload() stores all packages or none", async () => {
  await using world = await World.open();
  const owner = await world.device(await world.account("alice"));
  const good = { bytes: await makeKeyPackage(owner), lastResort: false };
  const bad = { bytes: await makeKeyPackage(await makeOwner()), lastResort: false };
  await rejectsWith(world.keyPackages.upload(owner, [good, bad]), "keyPackageInvalid");
  assert.deepEqual(await world.keyPackages.count(owner.deviceId), []);
  const { stored, counts } = await world.keyPackages.upload(owner, [good]);
  assert.deepEqual(stored, [true]);
  assert.deepEqual(counts, [{ suite: 1, count: 1, lastResortNotAfter: null }]);
  assert.deepEqual((await world.keyPackages.upload(owner, [good])).stored, [false]);
});

Deno.test("upload() refuses unsigned devices, none, too many at once, and a full supply", async () => {
  await using world = await World.open();
  const owner = await world.device(await world.account("alice"));
  const unsigned = { ...owner, deviceSigned: false };
  await rejectsWith(world.upload(unsigned, 1), "deviceUnsigned");
  await rejectsWith(world.upload(owner, 0), "malformedRequest");
  await rejectsWith(world.upload(owner, 5), "malformedRequest");
  await world.upload(owner, 3);
  await rejectsWith(world.upload(owner, 1), "keyPackageLimit");
  await world.upload(owner, 1, { lastResort: true });
});

Deno.test("claim() takes a package of each device, each once, then the last resort", async () => {
  await using world = await World.open();
  const accountId = await world.account("alice");
  const devices = [await world.device(accountId), await world.device(accountId)];
  for (const device of devices) {
    await world.upload(device, 1);
    await world.upload(device, 1, { lastResort: true });
  }
  const first = await world.claim({ userName: "alice" });
  assert.equal(first.accountId, accountId);
  assert.deepEqual(first.devices.map(({ deviceId }) => deviceId), devices.map(({ deviceId }) => deviceId));
  assert.deepEqual(first.keyPackages.map(({ lastResort }) => lastResort), [false, false]);
  const second = await world.claim({ accountId });
  assert.deepEqual(second.keyPackages.map(({ lastResort }) => lastResort), [true, true]);
  const third = await world.claim({ accountId });
  const bytesOf = ({ keyPackages }: typeof third) => keyPackages.map(({ bytes }) => bytes.toHex()).sort();
  assert.deepEqual(bytesOf(third), bytesOf(second));
});

Deno.test("claim() beyond a limit takes nothing from the supply", async () => {
  await using world = await World.open();
  const owner = await world.device(await world.account("alice"));
  await world.upload(owner, 3);
  const limited = { lastResortOnly: true };
  await rejectsWith(world.claim({ userName: "alice" }, limited), "noKeyPackages");
  await world.upload(owner, 1, { lastResort: true });
  const { keyPackages } = await world.claim({ userName: "alice" }, limited);
  assert.deepEqual(keyPackages.map(({ lastResort }) => lastResort), [true]);
  const [count] = await world.keyPackages.count(owner.deviceId);
  assert.equal(count?.count, 3);
});

Deno.test("claim() gives one answer for unknown, disabled and package-less accounts", async () => {
  await using world = await World.open();
  await world.device(await world.account("empty"));
  const disabled = await world.account("disabled");
  await world.upload(await world.device(disabled), 2);
  await world.store.setAccountEnabled(disabled, false);
  const answers = new Set<string>();
  const targets = [{ userName: "nobody" }, { userName: "empty" }, { userName: "disabled" }, {
    accountId: disabled,
  }];
  for (const target of [...targets, { accountId: randomId<AccountId>() }]) {
    answers.add((await rejectsWith(world.claim(target), "noKeyPackages")).message);
  }
  assert.equal(answers.size, 1);
  await world.store.setAccountEnabled(disabled, true);
  await world.claim({ userName: "disabled" });
});

Deno.test("claim() tells the owner once that the supply is low", async () => {
  await using world = await World.open();
  const owner = await world.device(await world.account("alice"));
  await world.upload(owner, 3);
  const notices = async () => {
    const fetch = { deviceId: owner.deviceId, after: 0, entriesMax: 10, bytesMax: 10_000, now: NOW };
    const fetched = await world.store.fetchAfter(fetch);
    return fetched!.entries.map(({ payload }) => new TextDecoder().decode(payload));
  };
  await world.claim({ userName: "alice" });
  assert.deepEqual(await notices(), []);
  await world.claim({ userName: "alice" });
  await world.claim({ userName: "alice" });
  assert.deepEqual(await notices(), ["low 1 1"]);
});

Deno.test("claim() takes only the devices asked for, and refuses unknown suites", async () => {
  await using world = await World.open();
  const accountId = await world.account("alice");
  const [wanted, other] = [await world.device(accountId), await world.device(accountId)];
  for (const device of [wanted, other]) await world.upload(device, 1);
  const claim = { target: { accountId }, suite: 1, devices: [wanted.deviceId], mayTakeFresh: () => true };
  const { keyPackages } = await world.keyPackages.claim(claim);
  assert.deepEqual(keyPackages.map(({ deviceId }) => deviceId), [wanted.deviceId]);
  await rejectsWith(world.keyPackages.claim({ ...claim, suite: 2 }), "malformedRequest");
  await rejectsWith(world.keyPackages.claim({ ...claim, suite: MLS_SUITE_XWING }), "noKeyPackages");
});

Deno.test("claim() passes over packages without the domain that the server has got since", async () => {
  await using world = await World.open("a.test");
  const accountId = await world.account("alice");
  const [old, mixed] = [await world.device(accountId), await world.device(accountId)];
  await world.upload(old, 1);
  await world.upload(old, 1, { lastResort: true });
  await world.upload(mixed, 2);
  await world.upload(mixed, 1, { domain: "a.test" });
  await world.upload(mixed, 1, { domain: "a.test", lastResort: true });
  const named = ({ keyPackages }: Awaited<ReturnType<World["claim"]>>) =>
    keyPackages.map(({ deviceId, lastResort }) =>
      `${deviceId === old.deviceId ? "old" : "mixed"}${lastResort ? " last resort" : ""}`
    ).sort();
  assert.deepEqual(named(await world.claim({ accountId }, { fromPeer: true })), ["mixed"]);
  assert.deepEqual(named(await world.claim({ accountId }, { fromPeer: true })), ["mixed last resort"]);
  // Whoever is on this server knows what no domain means.
  assert.deepEqual(named(await world.claim({ accountId })), ["mixed last resort", "old last resort"]);
});

Deno.test("claim() of a peer is told noKeyPackages when none names the domain", async () => {
  await using world = await World.open("a.test");
  const accountId = await world.account("alice");
  await world.upload(await world.device(accountId), 2, { lastResort: true });
  await rejectsWith(world.claim({ accountId }, { fromPeer: true }), "noKeyPackages");
});
