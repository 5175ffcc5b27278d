/**
 * Who may call what: every method of methods.ts × everybody who could try, against a real server. The outcomes are
 * written down here, one row for each method, and are not taken from methods.ts: a method without a row, or one that
 * opens to somebody else, fails. What others do leaves the owner's things as they were.
 */
import assert from "node:assert/strict";
import { fromBinary } from "@bufbuild/protobuf";
import { fromHex, randomBytes, sha256, utf8 } from "../../mod/base/bytes.ts";
import { systemClock } from "../../mod/base/clock.ts";
import type { ErrorCode } from "../../mod/base/errors.ts";
import { MLS_SUITE_X25519 } from "../../mod/base/mls_suites.ts";
import { resume } from "../../mod/client/session.ts";
import { createKeyPackages } from "../../mod/client/mls_key_packages.ts";
import { CLOSE_CODES } from "../../mod/protocol/close_codes.ts";
import { type MethodName, METHODS, type RequestInit } from "../../mod/protocol/methods.ts";
import {
  ChangePasswordStartResponseSchema,
  LoginStartResponseSchema,
  RegisterStartResponseSchema,
} from "../../mod/protocol/qpq_pb.ts";
import { beginLogin, beginRegistration } from "../support/opaque_client.ts";
import { RawStream, requestFrame } from "../support/raw_stream.ts";
import { connectTo, newAccount, newDevice, TestClient } from "../support/test_client.ts";
import { startTestServer, type TestServer } from "../support/test_server.ts";

/**
 * Everybody who could try. The first five are not logged in: without a token, refused for a wrong one, with the right
 * one, and two whose Resume was refused. `resumed` is the owner without a password just proven.
 */
const CALLERS = [
  "nobody",
  "wrongToken",
  "tokenHolder",
  "revokedDevice",
  "disabledAccount",
  "otherAccount",
  "resumed",
  "owner",
] as const;
type Caller = (typeof CALLERS)[number];
type Outcome = "ok" | ErrorCode;
type Outcomes = Readonly<Record<Caller, Outcome>>;

/** What a request is made from: what is the owner's, and who calls. */
interface Cell {
  readonly world: World;
  readonly caller: Caller;
  /** The stream that the request is sent on, for what has to come before it. */
  readonly raw: RawStream;
}

interface Row<M extends MethodName> {
  readonly request?: (cell: Cell) => RequestInit<M> | Promise<RequestInit<M>>;
  readonly outcomes: Outcomes;
  /** Bytes that follow the request's frame. */
  readonly behind?: Uint8Array;
  /** What a call uses up: its caller gets one of its own. */
  readonly spends?: "session" | "account";
}

const each = (outcome: Outcome): Outcomes =>
  Object.fromEntries(CALLERS.map((caller) => [caller, outcome])) as unknown as Outcomes;

/** Of a method that needs a login. */
function behindLogin(otherAccount: Outcome, resumed: Outcome = "ok", owner: Outcome = "ok"): Outcomes {
  return { ...each("loginRequired"), wrongToken: "helloRequired", otherAccount, resumed, owner };
}

/** Of a method that is open to all who said Hello. */
function beforeLogin(anyone: Outcome, loggedIn: Outcome, others: Partial<Outcomes> = {}): Outcomes {
  const inside = { otherAccount: loggedIn, resumed: loggedIn, owner: loggedIn };
  return { ...each(anyone), wrongToken: "helloRequired", ...inside, ...others };
}

const BLOB = utf8("the owner's blob");
const KEY_PACKAGE_SUITE = MLS_SUITE_X25519;

const ROWS: { readonly [M in MethodName]: Row<M> } = {
  hello: {
    request: () => ({ accessToken: "wrong" }),
    outcomes: { ...each("helloRepeated"), wrongToken: "invalidToken" },
  },
  ping: { outcomes: { ...each("ok"), wrongToken: "helloRequired", ...noToken("tokenRequired") } },

  registerStart: {
    request: ({ world }) => ({
      userName: world.alice.own.account.userName,
      suiteId: 1,
      registrationRequest: beginRegistration("password", world.realmId).request,
    }),
    // The other account and the owner have shown the token as well.
    outcomes: beforeLogin("tokenRequired", "userNameTaken", {
      tokenHolder: "userNameTaken",
      resumed: "tokenRequired",
    }),
  },
  registerFinish: {
    request: ({ world }) => ({
      handle: world.registrationBegun,
      registrationRecord: randomBytes(192),
      accountKey: randomBytes(32),
      wrappedAccountKey: randomBytes(64),
    }),
    outcomes: beforeLogin("malformedRequest", "malformedRequest"),
  },
  loginStart: {
    request: ({ world }) => ({
      userName: world.alice.own.account.userName,
      suiteIds: [1],
      ke1: beginLogin("wrong password", world.realmId).ke1,
    }),
    outcomes: beforeLogin("ok", "alreadyLoggedIn"),
  },
  loginFinish: {
    request: ({ world }) => ({
      handle: world.loginBegun,
      ke3: randomBytes(64),
      deviceId: randomBytes(16),
      deviceKey: randomBytes(32),
      deviceBinding: randomBytes(32),
      signature: randomBytes(64),
    }),
    outcomes: beforeLogin("loginFailed", "alreadyLoggedIn"),
  },
  resume: {
    request: ({ world }) => ({ sessionId: fromHex(world.alice.own.sessionId), signature: randomBytes(64) }),
    outcomes: beforeLogin("loginFailed", "alreadyLoggedIn"),
  },
  logout: { outcomes: behindLogin("ok"), spends: "session" },
  changePasswordStart: {
    request: ({ world }) => ({
      suiteId: 1,
      registrationRequest: beginRegistration("password", world.realmId).request,
    }),
    outcomes: behindLogin("ok", "freshLoginRequired"),
  },
  changePasswordFinish: {
    async request({ world, caller, raw }) {
      const own = caller === "owner" ? await beginPasswordChange(raw, world.realmId) : null;
      return {
        handle: own?.handle ?? world.passwordChangeBegun,
        registrationRecord: own?.record ?? randomBytes(192),
        wrappedAccountKey: randomBytes(64),
      };
    },
    outcomes: behindLogin("malformedRequest", "freshLoginRequired"),
    spends: "account",
  },
  deleteAccount: { outcomes: behindLogin("ok", "freshLoginRequired"), spends: "account" },
  getAccount: {
    request: ({ world }) => ({ accountId: world.alice.accountId }),
    outcomes: behindLogin("ok"),
  },

  listDevices: { outcomes: behindLogin("ok") },
  revokeDevice: {
    request: ({ world }) => ({ deviceId: world.tablet.deviceId }),
    outcomes: behindLogin("notFound", "freshLoginRequired"),
  },
  signDevice: {
    request: ({ world }) => ({ accountSignature: world.deviceSignature }),
    outcomes: behindLogin("invalidSignature", "invalidSignature"), // for another device of hers neither
  },
  block: { request: ({ world }) => ({ accountId: world.alice.accountId }), outcomes: behindLogin("ok") },
  unblock: { request: ({ world }) => ({ accountId: world.alice.accountId }), outcomes: behindLogin("ok") },
  listBlocks: { outcomes: behindLogin("ok") },
  createInvitation: { outcomes: behindLogin("ok") },

  uploadKeyPackages: {
    request: ({ world }) => ({ keyPackages: [{ keyPackage: world.keyPackage, lastResort: true }] }),
    outcomes: behindLogin("keyPackageInvalid", "keyPackageInvalid"),
  },
  countKeyPackages: { outcomes: behindLogin("ok") },
  fetchKeyPackages: {
    request: ({ world }) => ({ accountId: world.alice.accountId, suite: KEY_PACKAGE_SUITE }),
    outcomes: behindLogin("ok"),
  },

  enqueue: {
    request: ({ world }) => ({
      messageId: randomBytes(16),
      parts: [{ payload: utf8("for the owner"), recipients: [world.alice.deviceId] }],
    }),
    outcomes: behindLogin("ok"),
  },
  fetch: { outcomes: behindLogin("ok") },
  fetchWait: { request: () => ({ timeoutMs: 1 }), outcomes: behindLogin("ok") },
  // The queues of the owner's devices hold more, the other's less.
  ack: { request: () => ({ through: 15n }), outcomes: behindLogin("ackBeyondEnd") },
  subscribe: { outcomes: behindLogin("ok") },

  putBlob: {
    request: async () => ({ sha256: await sha256(BLOB), size: BigInt(BLOB.length) }),
    behind: BLOB,
    outcomes: behindLogin("ok"),
  },
  // Whoever knows a hash may read: it is a capability. Deleting takes away one's own reference.
  getBlob: {
    request: ({ world }) => ({ sha256: world.blobHash, offset: 996n, length: 4n }),
    outcomes: behindLogin("ok"),
  },
  deleteBlob: {
    request: async ({ world, caller }) => ({
      sha256: caller === "otherAccount" ? world.blobHash : await putBlob(world.alice, randomBytes(20)),
    }),
    outcomes: behindLogin("notFound"),
  },
};

function noToken(outcome: Outcome): Partial<Outcomes> {
  return { nobody: outcome, revokedDevice: outcome, disabledAccount: outcome };
}

/** The owner's things, and those who would like to have them. */
class World implements AsyncDisposable {
  readonly #stack = new AsyncDisposableStack();
  server!: TestServer;
  realmId!: string;
  alice!: TestClient;
  /** The owner again, by Resume. */
  resumed!: TestClient;
  /** A device of the owner's that she may revoke, and one that she has revoked. */
  tablet!: TestClient;
  lost!: TestClient;
  bob!: TestClient;
  disabled!: TestClient;
  /** Exchanges that were begun on other connections than those of the callers. */
  registrationBegun!: number;
  loginBegun!: number;
  passwordChangeBegun!: number;
  deviceSignature!: Uint8Array;
  keyPackage!: Uint8Array;
  blobHash!: Uint8Array;

  static async open(): Promise<World> {
    const world = new World();
    const often = ["connection-rate", "hello-rate", "resume-rate", "anonymous-request-rate", "login-rate"];
    const further = ["login-rate-address", "registration-rate", "connections-per-address"];
    const flags = Object.fromEntries([...often, ...further].map((name) => [`limits-${name}`, "100000"]));
    const server = await startTestServer({
      flags: { ...flags, "limits-devices-max": "50", invitations: "users" },
    });
    world.server = world.#stack.use(server);
    const use = async (client: Promise<TestClient>) => world.#stack.use(await client);
    world.alice = await use(newAccount(server, "alice"));
    world.realmId = world.alice.link.hello.realmId;
    world.bob = await use(newAccount(server, "bob"));
    world.tablet = await use(newDevice(server, "alice"));
    await world.#shutOut(use);
    await world.#beginExchanges();
    await world.#fill();
    const device = await use(newDevice(server, "alice"));
    world.resumed = await use(device.again(server));
    for (let i = 0; i < 20; i++) {
      await world.resumed.enqueue([world.resumed.deviceId], { payload: utf8("hers") });
    }
    return world;
  }

  /** A revoked device and a disabled account: their live connections end at once. */
  async #shutOut(use: (client: Promise<TestClient>) => Promise<TestClient>): Promise<void> {
    this.lost = await use(newDevice(this.server, "alice"));
    await this.alice.connection.call("revokeDevice", { deviceId: this.lost.deviceId });
    this.disabled = await use(newAccount(this.server, "carol"));
    const { authenticator } = this.server.server.context;
    await authenticator.setAccountEnabled(this.disabled.own.account.accountId, false);
    for (const client of [this.lost, this.disabled]) {
      assert.equal((await client.connection.closed).code, CLOSE_CODES.sessionEnded);
    }
  }

  async #beginExchanges(): Promise<void> {
    const raw = this.#stack.use(await RawStream.afterHello(this.server));
    const { request } = beginRegistration("password", this.realmId);
    await raw.write(
      requestFrame(1, "registerStart", { userName: "dora", suiteId: 1, registrationRequest: request }),
    );
    this.registrationBegun = fromBinary(RegisterStartResponseSchema, (await raw.reply()).frame.body).handle;
    const { ke1 } = beginLogin("password", this.realmId);
    await raw.write(requestFrame(2, "loginStart", { userName: "alice", suiteIds: [1], ke1 }));
    this.loginBegun = fromBinary(LoginStartResponseSchema, (await raw.reply()).frame.body).handle;
    const started = await this.alice.connection.call("changePasswordStart", {
      suiteId: 1,
      registrationRequest: request,
    });
    this.passwordChangeBegun = started.handle;
  }

  /** What others would like to read, change or take away. */
  async #fill(): Promise<void> {
    const { account, device } = this.alice.own;
    const { devices } = await this.alice.connection.call("listDevices", {});
    this.deviceSignature = devices.find(({ deviceId }) => sameBytes(deviceId, this.alice.deviceId))!
      .accountSignature;
    const identity = { accountId: account.accountId, deviceId: device.deviceId, domain: "", key: device.key };
    const context = { identity, isTrusted: () => Promise.resolve(true), clock: systemClock };
    const [made] = await createKeyPackages(context, {
      count: 1,
      suite: KEY_PACKAGE_SUITE,
      lastResort: true,
    });
    this.keyPackage = made!.publicBytes;
    await this.alice.connection.call("uploadKeyPackages", {
      keyPackages: [{ keyPackage: this.keyPackage, lastResort: true }],
    });
    this.blobHash = await putBlob(this.alice, randomBytes(1000));
    await this.alice.connection.call("block", { accountId: this.disabled.accountId });
    for (let i = 0; i < 20; i++) await this.alice.enqueue([this.alice.deviceId], { payload: utf8("hers") });
  }

  /** Everything of the owner's that only she may change, as she sees it. */
  async view(): Promise<unknown> {
    const { connection, accountId, deviceId } = this.alice;
    const { devices } = await connection.call("listDevices", {});
    const { accountIds } = await connection.call("listBlocks", {});
    const { counts } = await connection.call("countKeyPackages", {});
    const { userName, accountKey } = await connection.call("getAccount", { accountId });
    const { entries, cursor } = await connection.call("fetch", {});
    const { size, body } = await connection.getBlob({ sha256: this.blobHash });
    for await (const _ of body);
    return {
      devices: devices.map((
        device,
      ) => [device.deviceId.toHex(), device.name, device.accountSignature.toHex()]),
      accountIds,
      counts,
      account: [userName, accountKey.toHex(), deviceId.toHex()],
      queue: [entries[0]?.seq, cursor!.ackedThrough],
      size,
    };
  }

  /** A stream of `caller`'s, to be used once. */
  async streamOf(caller: Caller, spends: "session" | "account" | undefined): Promise<RawStream> {
    switch (caller) {
      case "nobody":
        return await this.#afterHello("");
      case "tokenHolder":
        return await this.#afterHello(this.server.accessToken);
      case "wrongToken": {
        const raw = await RawStream.open(this.server);
        await raw.write(requestFrame(1, "hello", { accessToken: "wrong" }));
        assert.equal((await raw.reply()).outcome, "invalidToken");
        return raw;
      }
      case "revokedDevice":
        return await this.#afterRefusedResume(this.lost, "deviceRevoked");
      case "disabledAccount":
        return await this.#afterRefusedResume(this.disabled, "accountDisabled");
      case "otherAccount":
        return await this.#loggedIn(this.bob, spends);
      case "resumed":
        return await (spends === "session" ? await this.#another("alice") : this.resumed).rawStream();
      case "owner":
        return await this.#loggedIn(this.alice, spends);
    }
  }

  async #loggedIn(client: TestClient, spends: "session" | "account" | undefined): Promise<RawStream> {
    if (!spends) return await client.rawStream();
    const { userName } = client.own.account;
    const own = spends === "session"
      ? await this.#another(userName)
      : await this.#tokenless(newAccount(this.server, `${userName}-${randomBytes(4).toHex()}`));
    return await own.rawStream();
  }

  async #another(userName: string): Promise<TestClient> {
    return await this.#tokenless(newDevice(this.server, userName));
  }

  async #tokenless(client: Promise<TestClient>): Promise<TestClient> {
    return this.#stack.use(await client);
  }

  async #afterHello(accessToken: string): Promise<RawStream> {
    const raw = this.#stack.use(await RawStream.open(this.server));
    await raw.write(requestFrame(1, "hello", { accessToken }));
    assert.equal((await raw.reply()).outcome, "ok");
    return raw;
  }

  async #afterRefusedResume(client: TestClient, code: ErrorCode): Promise<RawStream> {
    const link = await connectTo(this.server, { accessToken: "" });
    this.#stack.use(link.connection);
    await assert.rejects(resume(link, client.own), { code });
    return new RawStream(link.transport, await link.transport.openStream());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.toHex() === b.toHex();
}

async function putBlob(client: TestClient, bytes: Uint8Array): Promise<Uint8Array> {
  const hash = await sha256(bytes);
  await client.connection.putBlob(
    { sha256: hash, size: BigInt(bytes.length) },
    (async function* () {
      yield bytes;
    })(),
  );
  return hash;
}

async function beginPasswordChange(
  raw: RawStream,
  realmId: string,
): Promise<{ handle: number; record: Uint8Array }> {
  const begun = beginRegistration("another password", realmId);
  await raw.write(
    requestFrame(1, "changePasswordStart", { suiteId: 1, registrationRequest: begun.request }),
  );
  const reply = await raw.reply();
  assert.equal(reply.outcome, "ok");
  const { handle, registrationResponse } = fromBinary(ChangePasswordStartResponseSchema, reply.frame.body);
  return { handle, record: begun.finish(registrationResponse).record };
}

/** One call: who, what, and how it ended. */
async function outcomeOf(world: World, method: MethodName, caller: Caller): Promise<string> {
  const row: Row<MethodName> = ROWS[method] as Row<MethodName>;
  const expectsOk = row.outcomes[caller] === "ok";
  const first = await world.streamOf(caller, expectsOk ? row.spends : undefined);
  const raw = METHODS[method].stream === "own" ? await first.another() : first;
  const request = row.request ? await row.request({ world, caller, raw }) : {};
  const parts = [requestFrame(2, method, request as never), ...(row.behind ? [row.behind] : [])];
  await raw.write(...parts);
  const { outcome } = await raw.reply();
  for (const { stream } of [raw, first]) stream.abort();
  return outcome;
}

Deno.test("everybody who could try gets what the table says for every method, and nothing else", async (t) => {
  assert.deepEqual(Object.keys(ROWS), Object.keys(METHODS), "a row for each method");
  await using world = await World.open();
  const before = await world.view();
  for (const method of Object.keys(METHODS) as MethodName[]) {
    await t.step(method, async () => {
      const outcomes: Record<string, string> = {};
      for (const caller of CALLERS) {
        outcomes[caller] = await outcomeOf(world, method, caller);
        if (caller === "otherAccount") assert.deepEqual(await world.view(), before, "as it was");
      }
      assert.deepEqual(outcomes, ROWS[method].outcomes);
    });
    Object.assign(before as object, await world.view());
  }
});
