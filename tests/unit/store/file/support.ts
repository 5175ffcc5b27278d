/** A store of the file backend in a temporary folder, a disk that fails on purpose, and short verbs for tests. */
import { randomBytes, utf8 } from "../../../../mod/base/bytes.ts";
import {
  type AccountId,
  type DeviceId,
  type EntryId,
  type MessageId,
  randomId,
  type SessionId,
} from "../../../../mod/base/ids.ts";
import { type Disk, type DiskFile, realDisk } from "../../../../mod/store/file/disk.ts";
import { type FileStore, type FileStoreTuning, openFileStore } from "../../../../mod/store/file/mod.ts";
import type { EnqueueLimits, Entry, NewMessage, Store } from "../../../../mod/store/store.ts";

/** A raw key. */
export const KEY = "0123456789abcdef".repeat(4);
export const NOW = Date.UTC(2030, 0, 1, 12);
export const LATER = NOW + 86_400_000;

export const LIMITS: EnqueueLimits = {
  queueDepthMax: 100_000,
  queueBytesMax: 2 ** 30,
  senderShare: 1,
  senderBytesPerDay: 2 ** 40,
  idempotencyMs: 86_400_000,
  idempotencyCountMax: 50_000,
  guardsPerDay: 100,
  outboxDepthMax: 1000,
  outboxBytesMax: 10_000_000,
};

/** A folder that is removed at the end. */
export class TempFolder implements AsyncDisposable {
  readonly path = Deno.makeTempDirSync({ prefix: "qpq-file-store-" });

  get journal(): string {
    return `${this.path}/journal`;
  }

  /** A copy of the journal as it is at this moment. */
  copyJournal(): TempFolder {
    const copied = new TempFolder();
    Deno.mkdirSync(copied.journal);
    for (const entry of Deno.readDirSync(this.journal)) {
      Deno.copyFileSync(`${this.journal}/${entry.name}`, `${copied.journal}/${entry.name}`);
    }
    return copied;
  }

  names(): string[] {
    return [...Deno.readDirSync(this.journal)].map((entry) => entry.name).sort();
  }

  open(
    options: { keys?: string[]; mustExist?: boolean } & Partial<FileStoreTuning> = {},
  ): Promise<FileStore> {
    const { keys = [KEY], mustExist = false, ...tuning } = options;
    return openFileStore({ dataDir: this.path, keys, mustExist }, tuning);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.path, { recursive: true });
  }
}

/** Every call on the disk, by name. */
export type DiskCall =
  | "open"
  | "rename"
  | "remove"
  | "syncFolder"
  | "read"
  | "write"
  | "sync"
  | "truncate"
  | "makeFolder"
  | "list";

/** The real disk, with a hook before each call; for `write` the hook may shorten what is written before it throws. */
export class HookedDisk implements Disk {
  /** Throw to make the call fail. For a write, {@link partialBytes} are written before. */
  before: (call: DiskCall, path: string) => void | Promise<void> = () => {};
  partialBytes = 0;

  async list(folder: string) {
    await this.before("list", folder);
    return await realDisk.list(folder);
  }
  async makeFolder(path: string) {
    await this.before("makeFolder", path);
    await realDisk.makeFolder(path);
  }
  async open(path: string, mode: Parameters<Disk["open"]>[1]): Promise<DiskFile> {
    await this.before("open", `${mode} ${path}`);
    const file = await realDisk.open(path, mode);
    const hooked = async <Result>(call: DiskCall, work: () => Promise<Result>) => {
      await this.before(call, path);
      return await work();
    };
    return {
      size: () => file.size(),
      read: (offset, length) => hooked("read", () => file.read(offset, length)),
      write: async (offset, bytes) => {
        try {
          await this.before("write", path);
        } catch (error) {
          await file.write(offset, bytes.subarray(0, this.partialBytes));
          throw error;
        }
        await file.write(offset, bytes);
      },
      sync: () => hooked("sync", () => file.sync()),
      truncate: (size) => hooked("truncate", () => file.truncate(size)),
      close: () => file.close(),
    };
  }
  async rename(from: string, to: string) {
    await this.before("rename", to);
    await realDisk.rename(from, to);
  }
  async remove(path: string) {
    await this.before("remove", path);
    await realDisk.remove(path);
  }
  async syncFolder(path: string) {
    await this.before("syncFolder", path);
    await realDisk.syncFolder(path);
  }
}

/** An error as the operating system gives it. */
export function osError(code: string): Error {
  return Object.assign(new Error(`${code} on purpose`), { code });
}

/** An account with one device. */
export interface Person {
  readonly accountId: AccountId;
  readonly deviceId: DeviceId;
  readonly userName: string;
}

export async function addPerson(store: Store, userName: string): Promise<Person> {
  const person = { accountId: randomId<AccountId>(), deviceId: randomId<DeviceId>(), userName };
  const credential = { suiteId: 1, setupId: 1, record: randomBytes(192), wrappedAccountKey: randomBytes(60) };
  await store.createAccount({
    ...person,
    credential,
    accountKey: randomBytes(32),
    invitationSha256: null,
    now: NOW,
  });
  await addDevice(store, person);
  return person;
}

/** The person's device, as a login makes it. */
export async function addDevice(store: Store, person: Person): Promise<void> {
  await store.createSession({
    ...person,
    sessionId: randomId<SessionId>(),
    deviceKey: randomBytes(32),
    deviceName: `phone of ${person.userName}`,
    devicesMax: 10,
    deviceAddedNotice: { entryId: randomId<EntryId>(), payload: randomBytes(20), expiresAt: LATER },
    now: NOW,
  });
}

/** A message to be enqueued. */
export function message(
  from: Person,
  to: readonly Person[],
  payload: string | Uint8Array,
  changes: Partial<NewMessage> = {},
): NewMessage {
  return {
    senderAccount: from.accountId,
    senderDevice: from.deviceId,
    messageId: randomId<MessageId>(),
    requestSha256: randomBytes(32),
    entryId: randomId<EntryId>(),
    parts: [{
      payload: typeof payload === "string" ? utf8(payload) : payload,
      recipients: to.map((person) => person.deviceId),
    }],
    expiresAt: LATER,
    commitsTo: [],
    behind: [],
    origin: null,
    remote: [],
    guard: null,
    limits: LIMITS,
    now: NOW,
    ...changes,
  };
}

/** Everything in the person's queue. */
export async function fetchAll(store: Store, person: Person): Promise<Entry[]> {
  const entries: Entry[] = [];
  for (;;) {
    const after = entries.at(-1)?.seq ?? 0;
    const bounds = { after, entriesMax: 100, bytesMax: 2 ** 22, now: NOW };
    const fetched = await store.fetchAfter({ deviceId: person.deviceId, ...bounds });
    entries.push(...fetched!.entries);
    if (!fetched!.more) return entries;
  }
}

/** The payloads in the person's queue as text. */
export async function texts(store: Store, person: Person): Promise<string[]> {
  return (await fetchAll(store, person)).map((entry) => new TextDecoder().decode(entry.payload));
}
