/**
 * Mixed load on a server until it dies: sends, fetches with acknowledgements, uploads and claims of KeyPackages,
 * blobs, logins. What was answered and what was not goes into the ledger.
 */
import assert from "node:assert/strict";
import { systemClock } from "../../mod/base/clock.ts";
import { fromHex, hex, randomBytes, sha256 } from "../../mod/base/bytes.ts";
import { QpqError } from "../../mod/base/errors.ts";
import { MLS_SUITE_X25519 } from "../../mod/base/mls_suites.ts";
import { createKeyPackages } from "../../mod/client/mls_key_packages.ts";
import { ServerIdentityError } from "../../mod/client/identity.ts";
import { login } from "../../mod/client/session.ts";
import type { CrashLedger } from "./crash_ledger.ts";
import { fingerprintIn } from "./server_process.ts";
import {
  connectTo,
  newAccount,
  newDevice,
  PASSWORD,
  type Reachable,
  STRETCHED,
  TestClient,
  type TestLink,
} from "./test_client.ts";

const USER = "alice";
const BLOB_CHUNK_BYTES = 16 * 1024;
const BLOB_BYTES_MAX = 300_000;
const KEY_PACKAGES_AT_ONCE = 3;
/** More than a device may have are not made. */
const SUPPLY_MAX = 40;

/** Who is there: a sender, a recipient and a device that logs in again and again; all of one account. */
export interface CrashClients {
  readonly sender: TestClient;
  readonly recipient: TestClient;
  readonly visitor: TestClient;
}

/** Registers them. Entries that tell of new devices are acknowledged. */
export async function newClients(server: Reachable): Promise<CrashClients> {
  const sender = await newAccount(server, USER, STRETCHED);
  const visitor = await newDevice(server, USER, STRETCHED);
  return { sender, visitor, recipient: await newDevice(server, USER, STRETCHED) };
}

/** The same on new connections, each by the last session that it was given. */
export async function clientsAgain(
  { sender, recipient, visitor }: CrashClients,
  { server, loginLost }: { server: Reachable; loginLost: boolean },
): Promise<CrashClients> {
  return {
    sender: await sender.again(server),
    recipient: await recipient.again(server),
    visitor: await visitor.again(server).catch(async (error) => {
      // A login takes the place of the device's session also when nobody was told.
      if (!loginLost || !(error instanceof QpqError && error.code === "sessionExpired")) throw error;
      return await loginAgain(visitor, await connectTo(server, { accessToken: "" }));
    }),
  };
}

/** The device with a new session, and with `link` for its connection. */
async function loginAgain({ own: { device } }: TestClient, link: TestLink): Promise<TestClient> {
  const { account, sessionId } = await login(link, { userName: USER, password: PASSWORD, device });
  return new TestClient(link, { account, device, sessionId });
}

/** What a load needs to be told. */
export interface LoadOptions {
  readonly server: Reachable & { dataDir: string };
  readonly clients: CrashClients;
  readonly ledger: CrashLedger;
  readonly random: () => number;
  /** Aborts when the server is being killed: what fails from then on fails for that. */
  readonly dying: AbortSignal;
  /** Called after each reply, and before each chunk of a blob. */
  readonly onProgress: (what: "reply" | "chunk") => void;
}

/** One load. */
export class CrashLoad {
  readonly #options: LoadOptions;
  /** By the last login that was answered. */
  visitor: TestClient;
  /** Another was not. */
  loginLost = false;

  constructor(options: LoadOptions) {
    this.#options = options;
    this.visitor = options.clients.visitor;
  }

  /** Works until the server is gone. */
  async run(): Promise<void> {
    const { ledger } = this.#options;
    const senders = Array.from(
      { length: ledger.senders },
      (_, sender) => this.#untilGone(() => this.#send(sender)),
    );
    await Promise.all([
      ...senders,
      this.#untilGone(() => this.#fetch()),
      this.#untilGone(() => this.#uploadKeyPackages()),
      this.#untilGone(() => this.#claim()),
      this.#untilGone(() => this.#putBlob()),
      this.#untilGone(() => this.#login()),
    ]);
  }

  async #untilGone(work: () => Promise<void>): Promise<void> {
    const { dying, onProgress } = this.#options;
    while (!dying.aborted) {
      try {
        await work();
        onProgress("reply");
      } catch (error) {
        if (!dying.aborted || error instanceof assert.AssertionError) throw error;
      }
    }
  }

  async #send(sender: number): Promise<void> {
    const { ledger, clients } = this.#options;
    await clients.sender.enqueue([clients.recipient.deviceId], ledger.message(sender));
    ledger.sent(sender);
  }

  async #fetch(): Promise<void> {
    const { ledger, clients: { recipient }, random } = this.#options;
    const { entries } = await recipient.connection.call("fetch", { after: ledger.seen });
    ledger.replies++;
    for (const entry of entries) ledger.got(entry);
    if (entries.length === 0 || random() < 0.5) return;
    ledger.acking(ledger.seen);
    const through = ledger.seen;
    await recipient.connection.call("ack", { through });
    ledger.acked(through);
  }

  async #uploadKeyPackages(): Promise<void> {
    const { ledger, clients: { recipient } } = this.#options;
    if (ledger.supply > SUPPLY_MAX) return void await recipient.connection.call("ping", {});
    const { account, device } = recipient.own;
    const identity = { accountId: account.accountId, deviceId: device.deviceId, domain: "", key: device.key };
    const context = { identity, isTrusted: () => Promise.resolve(true), clock: systemClock };
    const made = await createKeyPackages(context, { count: KEY_PACKAGES_AT_ONCE, suite: MLS_SUITE_X25519 });
    const keyPackages = made.map(({ publicBytes }) => ({ keyPackage: publicBytes, lastResort: false }));
    ledger.uploading(made.map(({ publicBytes }) => publicBytes));
    await recipient.connection.call("uploadKeyPackages", { keyPackages });
    ledger.uploaded(made.length);
  }

  async #claim(): Promise<void> {
    const { ledger, clients: { sender } } = this.#options;
    await claimOne(sender, ledger);
  }

  async #putBlob(): Promise<void> {
    const { clients: { sender }, ledger, random, onProgress } = this.#options;
    const bytes = randomBytes(1 + Math.floor(random() ** 3 * BLOB_BYTES_MAX));
    const hash = await sha256(bytes);
    const body = async function* () {
      for (let at = 0; at < bytes.length; at += BLOB_CHUNK_BYTES) {
        onProgress("chunk");
        yield bytes.subarray(at, at + BLOB_CHUNK_BYTES);
      }
    };
    await sender.connection.putBlob({ sha256: hash, size: BigInt(bytes.length) }, body());
    ledger.put(hex(hash));
  }

  async #login(): Promise<void> {
    const { server, ledger, dying } = this.#options;
    const fingerprint = await fingerprintIn(server.dataDir);
    const link = await connectTo({ ...server, fingerprint }, { accessToken: "", signal: dying }).catch(
      (error) => {
        if (error instanceof ServerIdentityError) return null; // the certificate was changed in this moment
        throw error;
      },
    );
    if (!link) return;
    try {
      this.loginLost = true;
      this.visitor = await loginAgain(this.visitor, link);
      this.loginLost = false;
      ledger.replies++;
    } finally {
      await link.connection[Symbol.asyncDispose]();
    }
  }
}

/** Claims a KeyPackage of each device; returns how many came. */
export async function claimOne(claimer: TestClient, ledger: CrashLedger): Promise<number> {
  try {
    const request = { accountId: claimer.accountId, suite: MLS_SUITE_X25519 };
    const { keyPackages } = await claimer.connection.call("fetchKeyPackages", request);
    for (const { keyPackage } of keyPackages) ledger.claimed(keyPackage);
    return keyPackages.length;
  } catch (error) {
    if (error instanceof assert.AssertionError) throw error;
    if (error instanceof QpqError && error.code === "noKeyPackages") return 0;
    ledger.claimLost();
    throw error;
  }
}

/** After a start: everything that was promised is true. Ends with an empty queue and nothing undecided. */
export async function checkPromises({ sender, recipient }: CrashClients, ledger: CrashLedger): Promise<void> {
  const { cursor } = await recipient.connection.call("fetch", {});
  ledger.assertCursor(cursor!.ackedThrough);
  // A retry under the same id is the same message, whether or not the first try was accepted.
  await Promise.all(ledger.undecided.map(async (who) => {
    await sender.enqueue([recipient.deviceId], ledger.message(who));
    ledger.sent(who);
  }));
  for (let after = 0n, empty = false; !empty;) {
    const reply = await recipient.connection.call("fetch", { after });
    for (const entry of reply.entries) ledger.got(entry);
    after = reply.entries.at(-1)?.seq ?? after;
    empty = reply.empty;
  }
  ledger.assertAllCame();
  ledger.acking(ledger.seen);
  await recipient.connection.call("ack", { through: ledger.seen });
  ledger.acked(ledger.seen);
  const { counts } = await recipient.connection.call("countKeyPackages", {});
  ledger.assertSupply(counts.reduce((sum, { count }) => sum + count, 0));
  for (const hash of ledger.blobs) assert.equal(await blobHash(sender, hash), hash);
}

/** SHA-256 of a blob as it is served. */
async function blobHash(client: TestClient, hash: string): Promise<string> {
  const { body } = await client.connection.getBlob({ sha256: fromHex(hash) });
  const chunks = await Array.fromAsync(body);
  return hex(await sha256(new Uint8Array(await new Blob(chunks as BlobPart[]).arrayBuffer())));
}
