/**
 * A store under test with people in it. Times are made up: `now` stands still unless a test moves it. Nothing here
 * knows how a backend keeps things.
 */
import assert from "node:assert/strict";
import { randomBytes } from "../../../mod/base/bytes.ts";
import {
  type AccountId,
  type DeviceId,
  type EntryId,
  type MessageId,
  randomId,
  type SessionId,
} from "../../../mod/base/ids.ts";
import type {
  Accepted,
  Credential,
  Cursor,
  EnqueueLimits,
  Entry,
  NewAccount,
  NewKeyPackage,
  NewMessage,
  NewSession,
  ServerNotice,
  Store,
} from "../../../mod/store/store.ts";
import { tempFolder } from "../../support/temp_folder.ts";

/** Opens a store in a folder; opening the same folder again finds what was there. */
export type OpenStore = (dataDir: string) => Promise<Store>;

/** A day and an hour in milliseconds. */
export const DAY_MS = 86_400_000;
export const HOUR_MS = 3_600_000;
/** When the tests take place: noon of a UTC day. */
export const NOON = 20_000 * DAY_MS + 12 * HOUR_MS;

/** Limits that no test reaches unless it sets one lower. */
export const WIDE_LIMITS: EnqueueLimits = {
  queueDepthMax: 10_000,
  queueBytesMax: 10_000_000,
  senderShare: 0.25,
  senderBytesPerDay: 100_000_000,
  idempotencyMs: DAY_MS,
  idempotencyCountMax: 50_000,
  guardsPerDay: 100,
  outboxDepthMax: 1000,
  outboxBytesMax: 10_000_000,
};

/** A person with one device. */
export interface Person {
  readonly accountId: AccountId;
  readonly userName: string;
  readonly deviceId: DeviceId;
  readonly deviceKey: Uint8Array;
  readonly sessionId: SessionId;
}

/** A store in a folder of its own. */
export class World implements AsyncDisposable {
  now = NOON;
  store: Store;
  readonly dataDir: string;
  readonly #open: OpenStore;
  readonly #folder: AsyncDisposable;
  #people = 0;

  private constructor(parts: { open: OpenStore; folder: AsyncDisposable; dataDir: string; store: Store }) {
    this.#open = parts.open;
    this.#folder = parts.folder;
    this.dataDir = parts.dataDir;
    this.store = parts.store;
  }

  static async make(open: OpenStore): Promise<World> {
    const folder = await tempFolder();
    return new World({ open, folder, dataDir: folder.path, store: await open(folder.path) });
  }

  /** Closes the store and opens it again. */
  async reopen(): Promise<void> {
    await this.store.close();
    this.store = await this.#open(this.dataDir);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.store.close();
    await this.#folder[Symbol.asyncDispose]();
  }

  newAccount(fields: Partial<NewAccount> = {}): NewAccount {
    return {
      accountId: randomId(),
      userName: `person-${++this.#people}`,
      credential: newCredential(),
      accountKey: randomBytes(32),
      invitationSha256: null,
      now: this.now,
      ...fields,
    };
  }

  newSession(accountId: AccountId, fields: Partial<NewSession> = {}): NewSession {
    return {
      sessionId: randomId(),
      accountId,
      deviceId: randomId(),
      deviceKey: randomBytes(32),
      deviceName: "laptop",
      devicesMax: 10,
      deviceAddedNotice: this.notice(),
      now: this.now,
      ...fields,
    };
  }

  notice(fields: Partial<ServerNotice> = {}): ServerNotice {
    return {
      entryId: randomId<EntryId>(),
      payload: randomBytes(20),
      expiresAt: this.now + 30 * DAY_MS,
      ...fields,
    };
  }

  /** Registers somebody and logs them in with one device. */
  async person(fields: Partial<NewAccount> = {}): Promise<Person> {
    const account = this.newAccount(fields);
    assert.equal((await this.store.createAccount(account)).status, "created");
    return this.device(account);
  }

  /** Logs the account in with one more device. */
  async device(
    account: { accountId: AccountId; userName: string },
    fields: Partial<NewSession> = {},
  ): Promise<Person> {
    const session = this.newSession(account.accountId, fields);
    assert.equal((await this.store.createSession(session)).status, "created");
    const { deviceId, deviceKey, sessionId } = session;
    return { accountId: account.accountId, userName: account.userName, deviceId, deviceKey, sessionId };
  }

  /** A message from `sender` with one part to `recipients`. */
  message(sender: Person, recipients: readonly Person[], fields: Partial<NewMessage> = {}): NewMessage {
    return {
      senderAccount: sender.accountId,
      senderDevice: sender.deviceId,
      messageId: randomId<MessageId>(),
      requestSha256: randomBytes(32),
      entryId: randomId<EntryId>(),
      parts: [{ payload: randomBytes(100), recipients: recipients.map((person) => person.deviceId) }],
      expiresAt: this.now + 30 * DAY_MS,
      commitsTo: [],
      behind: [],
      origin: null,
      remote: [],
      guard: null,
      limits: WIDE_LIMITS,
      now: this.now,
      ...fields,
    };
  }

  /** Sends, and fails unless the message is accepted. */
  async send(
    sender: Person,
    recipients: readonly Person[],
    fields: Partial<NewMessage> = {},
  ): Promise<Accepted> {
    const result = await this.store.enqueue(this.message(sender, recipients, fields));
    assert.equal(result.status, "accepted");
    return result as Accepted;
  }

  /** Everything that waits for a device. */
  async entries(person: { deviceId: DeviceId }, after = 0): Promise<Entry[]> {
    const fetch = { deviceId: person.deviceId, after, entriesMax: 100_000, bytesMax: 1e9, now: this.now };
    const result = await this.store.fetchAfter(fetch);
    assert.ok(result);
    return result.entries;
  }

  async seqs(person: { deviceId: DeviceId }): Promise<number[]> {
    return (await this.entries(person)).map((entry) => entry.seq);
  }

  async cursor(person: { deviceId: DeviceId }): Promise<Cursor> {
    const cursor = await this.store.cursor(person.deviceId);
    assert.ok(cursor);
    return cursor;
  }

  keyPackages(count: number, fields: Partial<NewKeyPackage> = {}): NewKeyPackage[] {
    return Array.from({ length: count }, () => ({
      ref: randomBytes(32),
      suite: 1,
      bytes: randomBytes(300),
      notAfter: this.now + 60 * DAY_MS,
      lastResort: false,
      ...fields,
    }));
  }

  async upload(person: Person, packages: readonly NewKeyPackage[], perSuiteMax = 100) {
    return await this.store.uploadKeyPackages({
      deviceId: person.deviceId,
      packages,
      perSuiteMax,
      now: this.now,
    });
  }

  /** A signed device, so that its KeyPackages can be claimed. */
  async signed(person: Person): Promise<Person> {
    assert.equal(await this.store.signDevice(person.accountId, person.deviceId, randomBytes(64)), true);
    return person;
  }

  async claim(
    person: Person,
    fields: Partial<Parameters<Store["claimKeyPackages"]>[0]> = {},
  ) {
    return await this.store.claimKeyPackages({
      accountId: person.accountId,
      suite: 1,
      devices: null,
      lastResortOnly: false,
      lowBelow: 0,
      lowNotice: this.notice(),
      now: this.now,
      ...fields,
    });
  }
}

/** What an account logs in with. */
export function newCredential(fields: Partial<Credential> = {}): Credential {
  return {
    suiteId: 1,
    setupId: 1,
    record: randomBytes(192),
    wrappedAccountKey: randomBytes(60),
    ...fields,
  };
}

/** Registers tests about one verb; the store is made and removed for each. */
export type ContractTest = (sentence: string, run: (world: World) => Promise<void>) => void;

/** Byte strings as plain ones: a backend may answer with a subclass. */
export function plain<Value>(value: Value): Value {
  if (value instanceof Uint8Array) return new Uint8Array(value) as Value;
  if (Array.isArray(value)) return value.map(plain) as Value;
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, plain(field)])) as Value;
}
