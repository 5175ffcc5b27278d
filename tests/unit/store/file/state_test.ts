/** Undoing: whatever a verb did, rows and indexes are as before; and a loaded state is the state that was written. */
import { deepStrictEqual as equal } from "node:assert/strict";
import fc from "fast-check";
import type {
  AccountId,
  BlobHash,
  DeviceId,
  EntryId,
  GroupId,
  MessageId,
  SessionId,
} from "../../../../mod/base/ids.ts";
import * as accounts from "../../../../mod/store/file/accounts.ts";
import * as blobs from "../../../../mod/store/file/blobs.ts";
import * as keyPackages from "../../../../mod/store/file/keypackages.ts";
import * as outbox from "../../../../mod/store/file/outbox.ts";
import * as queues from "../../../../mod/store/file/queues.ts";
import { countAll, initSetup, writeMark } from "../../../../mod/store/file/server_rows.ts";
import * as sessions from "../../../../mod/store/file/sessions.ts";
import { State } from "../../../../mod/store/file/state.ts";
import { LATER, LIMITS, NOW } from "./support.ts";

/** Few ids, so that verbs meet each other. */
function id<Id extends string>(kind: number, number: number): Id {
  return `${kind}${number}`.padStart(32, "0") as Id;
}
const account = (n: number) => id<AccountId>(1, n % 3);
const device = (n: number) => id<DeviceId>(2, n % 5);
const notice = { entryId: id<EntryId>(3, 1), payload: new Uint8Array(5), expiresAt: LATER };
const bytes = (n: number) => new Uint8Array(32).fill(n);
const credential = { suiteId: 1, setupId: 1, record: bytes(1), wrappedAccountKey: bytes(2) };

type Verb = (state: State, n: number, now: number) => unknown;

const VERBS: Record<string, Verb> = {
  createAccount: (state, n, now) =>
    accounts.createAccount(state, {
      accountId: account(n),
      userName: `user${n % 3}`,
      credential,
      accountKey: bytes(3),
      invitationSha256: n % 7 === 0 ? bytes(n % 4) : null,
      now,
    }),
  changeCredential: (state, n) =>
    accounts.changeCredential(state, { accountId: account(n), credential, keepSession: id(4, n % 9) }),
  deleteAccount: (state, n) => n % 5 === 0 && accounts.deleteAccount(state, account(n)),
  setAccountEnabled: (state, n) => accounts.setAccountEnabled(state, account(n), n % 2 === 0),
  block: (state, n) => accounts.block(state, { accountId: account(n), blocked: account(n >> 2) }, 2),
  unblock: (state, n) => accounts.unblock(state, { accountId: account(n), blocked: account(n >> 2) }),
  createInvitation: (state, n, now) =>
    accounts.createInvitation(state, {
      sha256: bytes(n % 4),
      createdBy: n % 2 ? account(n) : null,
      forAccount: n % 3 ? null : account(n),
      expiresAt: now + 1000,
      maxOpen: 3,
      now,
    }),
  createSession: (state, n, now) =>
    sessions.createSession(state, {
      sessionId: id<SessionId>(4, n % 9),
      accountId: account(n % 5),
      deviceId: device(n),
      deviceKey: bytes(4),
      deviceName: "device",
      devicesMax: 3,
      deviceAddedNotice: notice,
      now,
    }),
  touchSession: (state, n, now) => sessions.touchSession(state, id(4, n % 9), now),
  endSession: (state, n) => sessions.endSession(state, id(4, n % 9)),
  expireSessions: (state, n, now) =>
    sessions.expireSessions(state, { idleBefore: now - 50, createdBefore: now - 100, limit: n % 3 }),
  signDevice: (state, n) =>
    sessions.signDevice(state, { accountId: account(n % 5), deviceId: device(n) }, bytes(5)),
  revokeDevice: (state, n, now) =>
    n % 4 === 0 &&
    sessions.revokeDevice(state, { accountId: account(n % 5), deviceId: device(n) }, { notice, now }),
  expireDevices: (state, n, now) => n % 4 === 0 && sessions.expireDevices(state, now - 60, n % 3),
  uploadKeyPackages: (state, n, now) =>
    keyPackages.uploadKeyPackages(state, {
      deviceId: device(n),
      packages: [0, 1, 2].map((i) => ({
        ref: bytes(n % 50 + i),
        suite: n % 2,
        bytes: bytes(i),
        notAfter: now + n % 400,
        lastResort: (n + i) % 4 === 0,
      })),
      perSuiteMax: 5,
      now,
    }),
  claimKeyPackages: (state, n, now) =>
    keyPackages.claimKeyPackages(state, {
      accountId: account(n),
      suite: n % 2,
      devices: n % 3 ? null : [device(n)],
      lastResortOnly: n % 5 === 0,
      lowBelow: 2,
      lowNotice: notice,
      now,
    }),
  expireKeyPackages: (state, n, now) => keyPackages.expireKeyPackages(state, now, n % 4),
  enqueue: (state, n, now) =>
    queues.enqueue(state, {
      senderAccount: account(n % 5),
      senderDevice: device(n),
      messageId: id<MessageId>(5, n % 30),
      requestSha256: bytes(n % 2),
      entryId: id<EntryId>(3, n),
      parts: [
        { payload: new Uint8Array(n % 40), recipients: [device(n >> 1), device(n >> 2), device(n >> 2)] },
        { payload: new Uint8Array(3), recipients: [device(n >> 3)] },
      ],
      expiresAt: now + n % 60,
      commitsTo: n % 6 ? [] : ["aa" as GroupId],
      behind: n % 7 ? [] : [id<MessageId>(5, (n + 1) % 30)],
      guard: n % 6
        ? null
        : { groupId: "aa" as GroupId, epoch: n % 3, tokenSha256: bytes(1), nextTokenSha256: bytes(1) },
      origin: n % 3 ? null : `${n % 2}.example`,
      remote: n % 3 === 1
        ? [{ domain: `${n % 4}.example`, body: new Uint8Array(n % 50), recipients: 2 }]
        : [],
      limits: {
        ...LIMITS,
        outboxDepthMax: 3,
        outboxBytesMax: 90,
        queueDepthMax: 12,
        queueBytesMax: 200,
        senderShare: 0.5,
        idempotencyCountMax: 4,
      },
      now,
    }),
  settleOutbox: (state, n, now) => {
    const domain = `${n % 4}.example`;
    const settled = state.queueIndex.outboxIds(domain).slice(0, n % 3)
      .map((id) => ({ id, failures: n % 5 ? [] : [notice] }));
    outbox.settleOutbox(state, { domain, settled, now });
  },
  setPeerBlocked: (state, n, now) =>
    outbox.setPeerBlocked(state, { domain: `${n % 5}.example`, blocked: n % 2 === 0 }, now),
  ack: (state, n) => queues.ack(state, device(n), n % 15),
  expireEntries: (state, n, now) => queues.expireEntries(state, now, n % 4),
  expireMessageIds: (state, n, now) =>
    queues.expireMessageIds(state, { before: now - 30, remoteBefore: now - 60 }, n % 4),
  expireGuards: (state, n, now) => queues.expireGuards(state, now - 40, n % 2),
  putBlobReference: (state, n, now) =>
    blobs.putBlobReference(state, {
      hash: `${n % 4}`.repeat(64) as BlobHash,
      owner: account(n),
      bytes: 10,
      expiresAt: now + n % 50,
      quotaBytes: 25,
      dryRun: n % 4 === 0,
      now,
    }),
  deleteBlobReference: (state, n) =>
    blobs.deleteBlobReference(state, `${n % 4}`.repeat(64) as BlobHash, account(n)),
  expireBlobs: (state, n, now) => blobs.expireBlobs(state, now, n % 3),
  initSetup: (state) => initSetup(state, { suiteId: 1, secret: bytes(9), createdAt: NOW }),
  writeMark: (state, n) => writeMark(state, n),
};

/** Everything that can be seen of a state, without the order of its tables. */
function look(state: State) {
  const rows = [...state.tables.values()].map((table) =>
    [...table.keys()].sort().map((key) => [key, table.encode(key)])
  );
  const devices = [0, 1, 2, 3, 4].map(device);
  return {
    rows,
    counts: countAll(state),
    live: [...state.sessionIndex.live].sort(),
    queues: devices.map((deviceId) => {
      const list = state.queueIndex.list(deviceId);
      return {
        seqs: [...list.after(0)].map((entry) => entry.seq),
        load: list.load,
        senders: [...list.bySender].sort(),
        messageIds: [...state.queueIndex.messageIdsOf(deviceId)].sort(),
        packages: state.keyPackageIndex.suitesOf(deviceId).map((suite) => {
          const { once, lastResort } = state.keyPackageIndex.supply(deviceId, suite);
          return { suite, once: [...once].sort(), lastResort };
        }),
      };
    }),
    accounts: [0, 1, 2].map((n) => ({
      devices: state.sessionIndex.devicesOf(account(n)).map((row) => row.deviceId).sort(),
      blocked: [...state.accountIndex.blockedBy(account(n))].sort(),
      blobBytes: state.blobIndex.bytesOf(account(n)),
    })),
    outboxes: outbox.outboxes(state),
    segments: state.queueIndex.segmentBytes(0),
  };
}

const step = fc.tuple(fc.constantFrom(...Object.keys(VERBS)), fc.nat(1000), fc.boolean());
const start = ["createAccount", "createSession", "signDevice", "uploadKeyPackages", "enqueue"];

Deno.test("rollback() undoes whatever verbs did; a loaded state is the one that was written", () => {
  fc.assert(
    fc.property(fc.array(step, { minLength: 60, maxLength: 200 }), (steps) => {
      const state = new State({ queueEntriesMax: 30 });
      let now = NOW;
      for (const name of start) for (let n = 0; n < 5; n++) VERBS[name]!(state, n, now);
      state.endBatch();
      for (const [name, n, kept] of steps) {
        now += n % 7;
        const before = kept ? undefined : look(state);
        VERBS[name]!(state, n, now);
        if (!kept) state.rollback(0);
        state.endBatch();
        if (!kept) equal(look(state), before, name);
      }
      const loaded = new State({ queueEntriesMax: 30 });
      for (const [tableId, table] of state.tables) {
        for (const key of table.keys()) loaded.tables.get(tableId)!.load(table.encode(key)!);
      }
      loaded.loaded();
      equal(look(loaded), look(state));
    }),
    { numRuns: 40 },
  );
});

Deno.test("the random verbs reach every table", () => {
  const state = new State({ queueEntriesMax: 1000 });
  const reached = new Set<number>();
  const names = Object.keys(VERBS);
  for (let n = 0, random = 1; n < 10_000; n++) {
    random = random * 48_271 % 0x7fffffff;
    VERBS[names[random % names.length]!]!(state, random >> 8 & 1023, NOW + n);
    for (const { table } of state.netChanges()) reached.add(table.id);
    state.endBatch();
  }
  equal([...state.tables.keys()].filter((tableId) => !reached.has(tableId)), []);
});
