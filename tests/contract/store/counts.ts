/**
 * Contract of ServerStore.counts: whatever happens, the numbers kept in the transactions are those of a recount
 * through the other verbs. Random operations from a seed that is in the test's name when it fails.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { randomBytes } from "../../../mod/base/bytes.ts";
import type { AccountId, BlobHash } from "../../../mod/base/ids.ts";
import type { RemoteMessage, StoreCounts } from "../../../mod/store/store.ts";
import { type ContractTest, DAY_MS, HOUR_MS, type Person, WIDE_LIMITS, type World } from "./world.ts";

/** What the test knows to exist or to have existed. */
export interface Known {
  readonly people: Person[];
  readonly blobs: BlobHash[];
}

/** One kind of operation; `pick` gives a number below its argument. */
export type Operation = (world: World, known: Known, pick: (below: number) => number) => Promise<unknown>;

const somebody = ({ people }: Known, pick: (below: number) => number) => people[pick(people.length)]!;
const limits = {
  ...WIDE_LIMITS,
  outboxDepthMax: 6,
  outboxBytesMax: 600,
  queueDepthMax: 12,
  queueBytesMax: 2000,
  senderShare: 0.5,
};

/** Whatever clients do, at random. */
export const OPERATIONS: readonly Operation[] = [
  async (world, { people }) => people.push(await world.person()),
  async (world, known, pick) => {
    const person = somebody(known, pick);
    const session = world.newSession(person.accountId, { devicesMax: 3 });
    const { status } = await world.store.createSession(session);
    if (status === "created") known.people.push({ ...person, ...session });
  },
  ...Array<Operation>(4).fill(async (world, known, pick) => {
    const to = Array.from({ length: 1 + pick(4) }, () => somebody(known, pick).deviceId);
    const part = () => ({ payload: randomBytes(pick(200)), recipients: to });
    const expiresAt = world.now + pick(20) * HOUR_MS;
    const parts = Array.from({ length: 1 + pick(2) }, part);
    await world.store.enqueue(world.message(somebody(known, pick), [], { parts, expiresAt, limits }));
  }),
  async (world, known, pick) => {
    const remote = Array.from({ length: 1 + pick(2) }, (_, index): RemoteMessage => ({
      ...{ domain: `peer-${index}.example`, body: randomBytes(pick(200)), recipients: 1 },
    }));
    const message = world.message(somebody(known, pick), [somebody(known, pick)], { remote, limits });
    await world.store.enqueue(message);
  },
  async (world, known, pick) => {
    const origin = `peer-${pick(3)}.example`;
    const message = world.message(somebody(known, pick), [somebody(known, pick)], { origin, limits });
    await world.store.enqueue(message);
  },
  async (world, _known, pick) => {
    const domain = `peer-${pick(3)}.example`;
    const waiting = await world.store.outboxAfter({
      domain,
      after: 0,
      entriesMax: 1 + pick(3),
      bytesMax: 1e9,
    });
    const settled = waiting.map(({ id }) => ({ id, failures: pick(2) ? [world.notice()] : [] }));
    await world.store.settleOutbox({ domain, settled, now: world.now });
  },
  ...Array<Operation>(2).fill(async (world, known, pick) => {
    const { deviceId } = somebody(known, pick);
    const cursor = await world.store.cursor(deviceId);
    if (cursor) await world.store.ack(deviceId, pick(cursor.nextSeq));
  }),
  (world, _known, pick) => world.store.expireEntries(world.now += pick(4) * HOUR_MS, 1 + pick(10)),
  async (world, known, pick) => {
    const person = somebody(known, pick);
    await world.store.signDevice(person.accountId, person.deviceId, randomBytes(64));
    const fields = { notAfter: world.now + DAY_MS, lastResort: pick(4) === 0, suite: 1 + pick(2) };
    await world.upload(person, world.keyPackages(pick(4), fields), 6);
  },
  (world, known, pick) => world.claim(somebody(known, pick), { lowBelow: 2, suite: 1 + pick(2) }),
  (world, _known, pick) => world.store.expireKeyPackages(world.now, 1 + pick(5)),
  async (world, known, pick) => {
    const hash = pick(2) === 0 || known.blobs.length === 0
      ? randomBytes(32).toHex() as BlobHash
      : known.blobs[pick(known.blobs.length)]!;
    if (!known.blobs.includes(hash)) known.blobs.push(hash);
    await world.store.putBlobReference({
      ...{ hash, owner: somebody(known, pick).accountId, bytes: 10, expiresAt: world.now + DAY_MS },
      ...{ quotaBytes: 50, dryRun: pick(4) === 0, now: world.now },
    });
  },
  async (world, known, pick) => {
    const hash = known.blobs[pick(known.blobs.length)];
    if (hash) await world.store.deleteBlobReference(hash, somebody(known, pick).accountId);
  },
  (world, _known, pick) => world.store.expireBlobs(world.now, 1 + pick(3)),
  async (world, known, pick) => {
    const { accountId, deviceId } = somebody(known, pick);
    await world.store.revokeDevice(accountId, deviceId, world.notice(), world.now);
  },
  async (world, known, pick) => {
    if (pick(3) === 0) await world.store.deleteAccount(somebody(known, pick).accountId, world.now);
  },
  (world, _known, pick) =>
    pick(4) === 0 ? world.store.expireDevices(world.now - 2 * DAY_MS, 2) : Promise.resolve(),
];

async function recount(world: World, { people, blobs }: Known): Promise<StoreCounts> {
  const counts = {
    ...{ accounts: 0, devices: 0, queueEntries: 0, queueBytes: 0 },
    ...{ keyPackages: 0, blobs: 0, blobBytes: 0, outboxEntries: 0, outboxBytes: 0 },
  };
  for (const { domain, depth, bytes } of await world.store.outboxes()) {
    const entries = await world.store.outboxAfter({ domain, after: 0, entriesMax: 1e5, bytesMax: 1e9 });
    const sums = [entries.length, entries.reduce((sum, { body }) => sum + body.length, 0)];
    assert.deepEqual([depth, bytes], sums);
    counts.outboxEntries += depth;
    counts.outboxBytes += bytes;
  }
  for (const accountId of new Set<AccountId>(people.map((person) => person.accountId))) {
    if (await world.store.findAccount(accountId)) counts.accounts += 1;
    for (const { deviceId } of await world.store.listDevices(accountId)) {
      counts.devices += 1;
      const fetch = { deviceId, after: 0, entriesMax: 1e5, bytesMax: 1e9, now: 0 };
      for (const { payload } of (await world.store.fetchAfter(fetch))!.entries) {
        counts.queueEntries += 1;
        counts.queueBytes += payload.length;
      }
      for (const { count, lastResortNotAfter } of await world.store.countKeyPackages(deviceId, 0)) {
        counts.keyPackages += count + (lastResortNotAfter === null ? 0 : 1);
      }
    }
  }
  const gone = new Set(await world.store.unreferencedBlobs(blobs));
  for (const hash of blobs) {
    if (gone.has(hash)) continue;
    counts.blobs += 1;
    counts.blobBytes += (await world.store.findBlob(hash, 0))!.bytes;
  }
  return counts;
}

/** Registers the tests. */
export function countsContract(test: ContractTest): void {
  test("counts() equals a recount after random operations, before and after reopening", async (world) => {
    const known: Known = { people: [await world.person(), await world.person()], blobs: [] };
    const step = fc.record({
      kind: fc.nat({ max: OPERATIONS.length - 1 }),
      picks: fc.array(fc.nat({ max: 1 << 20 }), { minLength: 8, maxLength: 8 }),
    });
    // The world goes on from one run to the next: fast-check makes the steps, their shrinking would not mean much.
    const property = fc.asyncProperty(fc.array(step, { minLength: 10, maxLength: 10 }), async (steps) => {
      for (const { kind, picks } of steps) {
        let used = 0;
        await OPERATIONS[kind]!(world, known, (below) => below === 0 ? 0 : picks[used++ % 8]! % below);
      }
      assert.deepEqual(await world.store.counts(), await recount(world, known));
    });
    await fc.assert(property, { numRuns: 30, endOnFailure: true });
    const before = await world.store.counts();
    await world.reopen();
    assert.deepEqual(await world.store.counts(), before);
    assert.deepEqual(await recount(world, known), before);
  });

  test("counts() and order stand concurrent sending and acknowledging", async (world) => {
    const people = await Promise.all(Array.from({ length: 4 }, () => world.person()));
    const generous = { ...WIDE_LIMITS, senderShare: 1 };
    await Promise.all(people.map(async (person, index) => {
      for (let round = 0; round < 25; round++) {
        const to = people[(index + round) % people.length]!;
        await Promise.all([
          world.send(person, [to, person], { limits: generous }),
          world.cursor(person).then(({ nextSeq }) => {
            return world.store.ack(person.deviceId, Math.floor(nextSeq / 2));
          }),
        ]);
      }
    }));
    const counts = await world.store.counts();
    assert.deepEqual(counts, await recount(world, { people, blobs: [] }));
    for (const person of people) {
      const seqs = await world.seqs(person);
      assert.deepEqual(seqs, seqs.map((_, index) => seqs[0]! + index));
    }
  });
}
