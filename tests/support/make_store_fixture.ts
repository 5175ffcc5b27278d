/**
 * Makes tests/fixtures/store_versions/<backend>-v<N>/: a small store of each backend as this version of the program
 * writes it, always with the same content. Run it once when SCHEMA_VERSION or FORMAT_VERSION has risen, and commit
 * what it made; older folders stay as they are:
 *
 *   deno run -A tests/support/make_store_fixture.ts
 */
import { createHash } from "node:crypto";
import { fileURLToPath as fromFileUrl } from "node:url";
import type { Bytes } from "../../mod/base/bytes.ts";
import type {
  AccountId,
  BlobHash,
  DeviceId,
  EntryId,
  GroupId,
  MessageId,
  SessionId,
} from "../../mod/base/ids.ts";
import { FORMAT_VERSION } from "../../mod/store/file/header.ts";
import { openStore, type StoreBackend } from "../../mod/store/open.ts";
import { rowText } from "../../mod/store/row_digest.ts";
import { SCHEMA_VERSION } from "../../mod/store/sqlcipher/schema.ts";
import type { EnqueueLimits, NewMessage, Store } from "../../mod/store/store.ts";
import { tempFolder } from "./temp_folder.ts";

/** Versions that this program writes. */
export const VERSIONS: Record<StoreBackend, number> = { sqlcipher: SCHEMA_VERSION, file: FORMAT_VERSION };
/** The key of every fixture. */
export const FIXTURE_KEY = "f1".repeat(32);
/** Where the fixtures are. */
export const FIXTURE_FOLDER = new URL("../fixtures/store_versions/", import.meta.url);

const DAY_MS = 86_400_000;
const NOW = 20_000 * DAY_MS;
const LIMITS: EnqueueLimits = {
  queueDepthMax: 2,
  queueBytesMax: 10_000,
  senderShare: 1,
  senderBytesPerDay: 1_000_000,
  idempotencyMs: DAY_MS,
  idempotencyCountMax: 1000,
  guardsPerDay: 10,
  outboxDepthMax: 1000,
  outboxBytesMax: 10_000_000,
};

/** Bytes that are always the same for a label. */
function bytesOf(label: string, length: number): Bytes {
  const blocks: Bytes[] = [];
  for (let filled = 0; filled < length; filled += 32) {
    blocks.push(new Uint8Array(createHash("sha256").update(`${label} ${filled}`).digest()));
  }
  const bytes = new Uint8Array(length);
  blocks.forEach((block, index) => bytes.set(block.subarray(0, length - index * 32), index * 32));
  return bytes;
}

function id<Id extends string>(label: string, length = 16): Id {
  return bytesOf(label, length).toHex() as Id;
}

const accountOf = (name: string) => id<AccountId>(`account ${name}`);
const deviceOf = (name: string) => id<DeviceId>(`device ${name}`);

function must(made: { status: string }, status: string): void {
  if (made.status !== status) throw new Error(`Expected ${status}: ${made.status}`);
}

async function register(store: Store, name: string): Promise<void> {
  const credential = {
    suiteId: 1,
    setupId: 1,
    record: bytesOf(`record ${name}`, 192),
    wrappedAccountKey: bytesOf(`wrapped ${name}`, 60),
  };
  const account = { accountId: accountOf(name), userName: name, credential };
  const accountKey = bytesOf(`account key ${name}`, 32);
  must(
    await store.createAccount({ ...account, accountKey, invitationSha256: null, now: NOW }),
    "created",
  );
}

async function login(store: Store, name: string, device: string): Promise<void> {
  const session = {
    sessionId: id<SessionId>(`session ${device}`),
    accountId: accountOf(name),
    deviceId: deviceOf(device),
    deviceKey: bytesOf(`device key ${device}`, 32),
    deviceName: device,
    devicesMax: 10,
    deviceAddedNotice: noticeOf(`added ${device}`),
    now: NOW,
  };
  must(await store.createSession(session), "created");
  await store.signDevice(accountOf(name), deviceOf(device), bytesOf(`signature ${device}`, 64));
}

function noticeOf(label: string) {
  return { entryId: id<EntryId>(label), payload: bytesOf(label, 20), expiresAt: NOW + 30 * DAY_MS };
}

async function send(
  store: Store,
  message: { label: string; to: readonly string[] } & Partial<NewMessage>,
): Promise<void> {
  const { label, to, ...fields } = message;
  must(
    await store.enqueue({
      senderAccount: accountOf("bob"),
      senderDevice: deviceOf("bob phone"),
      messageId: id<MessageId>(`message ${label}`),
      requestSha256: bytesOf(`request ${label}`, 32),
      entryId: id<EntryId>(`entry ${label}`),
      parts: [{ payload: bytesOf(`payload ${label}`, 300), recipients: to.map(deviceOf) }],
      expiresAt: NOW + 30 * DAY_MS,
      commitsTo: [],
      behind: [],
      origin: null,
      remote: [],
      guard: null,
      limits: LIMITS,
      now: NOW,
      ...fields,
    }),
    "accepted",
  );
}

async function uploadPackages(store: Store): Promise<void> {
  const packages = ["first", "second", "last"].map((label, index) => ({
    ref: bytesOf(`ref ${label}`, 32),
    suite: 1,
    bytes: bytesOf(`package ${label}`, 277),
    notAfter: NOW + (60 + index) * DAY_MS,
    lastResort: label === "last",
  }));
  const upload = { deviceId: deviceOf("alice laptop"), packages, perSuiteMax: 100, now: NOW };
  must(await store.uploadKeyPackages(upload), "stored");
  await store.claimKeyPackages({
    ...{ accountId: accountOf("alice"), suite: 1, devices: null, lastResortOnly: false, lowBelow: 5 },
    ...{ lowNotice: noticeOf("low"), now: NOW },
  });
}

/** Puts one of everything into an empty store. */
export async function fillFixture(store: Store): Promise<void> {
  await store.initOpaqueSetup({ suiteId: 1, secret: bytesOf("setup", 128), createdAt: NOW });
  for (const name of ["alice", "bob", "carol"]) await register(store, name);
  await login(store, "alice", "alice laptop");
  await login(store, "alice", "alice phone");
  await login(store, "alice", "alice lost");
  await login(store, "bob", "bob phone");
  await store.revokeDevice(accountOf("alice"), deviceOf("alice lost"), noticeOf("revoked"), NOW);
  await store.ack(deviceOf("alice laptop"), 3);
  await uploadPackages(store);
  await send(store, { label: "one", to: ["alice phone"], limits: { ...LIMITS, queueDepthMax: 100 } });
  await send(store, { label: "two", to: ["alice laptop", "bob phone", "nobody"] });
  await send(store, { label: "full", to: ["alice laptop"] });
  const guard = {
    groupId: id<GroupId>("group", 20),
    epoch: 4,
    tokenSha256: bytesOf("token", 32),
    nextTokenSha256: bytesOf("next token", 32),
  };
  await send(store, { label: "commit", to: ["bob phone"], guard, commitsTo: [guard.groupId] });
  for (const owner of ["alice", "bob"]) {
    await store.putBlobReference({
      ...{ hash: id<BlobHash>("blob", 32), owner: accountOf(owner), bytes: 1000, quotaBytes: 10_000 },
      ...{ expiresAt: NOW + 37 * DAY_MS, dryRun: false, now: NOW },
    });
  }
  await store.block(accountOf("alice"), accountOf("carol"), 10);
  for (const forAccount of [null, accountOf("bob")]) {
    await store.createInvitation({
      ...{ sha256: bytesOf(`invitation ${forAccount}`, 32), createdBy: null, forAccount, maxOpen: 10 },
      ...{ expiresAt: NOW + 7 * DAY_MS, now: NOW },
    });
  }
  await store.setAccountEnabled(accountOf("bob"), false);
  await store.deleteAccount(accountOf("carol"), NOW);
  await store.writeMark(NOW);
}

/** Everything in a store, as lines in order; without what is random in each store (its identity). */
export async function contentOf(store: Store): Promise<string> {
  const lines: string[] = [];
  for await (const rows of store.exportRows()) {
    lines.push(...rows.filter((row) => row.kind !== "store").map(rowText));
  }
  return lines.sort().join("\n") + "\n";
}

/** Where the fixture of a version is. */
export function fixtureFolder(backend: StoreBackend, version: number): string {
  return fromFileUrl(new URL(`${backend}-v${version}`, FIXTURE_FOLDER));
}

async function makeFixture(backend: StoreBackend): Promise<void> {
  const folder = fixtureFolder(backend, VERSIONS[backend]);
  const made = await Deno.mkdir(folder).then(() => true, () => false);
  if (!made) return;
  await using work = await tempFolder();
  const store = await openStore({ backend, dataDir: work.path, keys: [FIXTURE_KEY] });
  await fillFixture(store);
  await store.snapshotTo(folder, () => {});
  await Deno.writeTextFile(new URL("content.txt", FIXTURE_FOLDER), await contentOf(store));
  await store.close();
}

if (import.meta.main) {
  for (const backend of Object.keys(VERSIONS) as StoreBackend[]) await makeFixture(backend);
}
