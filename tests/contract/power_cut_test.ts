/**
 * Power cuts of the file store and of blobs: after every step of a story every kind of disk that a power cut can
 * leave is made and opened. What was acknowledged before the cut is there, once and in order; nothing is damaged.
 */
import assert from "node:assert/strict";
import { concat, hex, randomBytes, sha256, utf8, utf8Text } from "../../mod/base/bytes.ts";
import type { BlobHash } from "../../mod/base/ids.ts";
import { Blobs } from "../../mod/delivery/blobs.ts";
import { BlobFiles } from "../../mod/store/blob_files.ts";
import { type Disk, realDisk } from "../../mod/store/file/disk.ts";
import { type FileStore, openFileStore } from "../../mod/store/file/mod.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { type Fate, type History, type Image, imageAfter, PowerDisk } from "../support/power_disk.ts";
import { uncertainSteps, writeImage } from "../support/power_disk.ts";
import { prng } from "../support/prng.ts";
import { rejectsWith } from "../support/rejects.ts";
import { tempFolder } from "../support/temp_folder.ts";
import { GENEROUS, KEY } from "./admin/backend.ts";
import { NOON, type Person, World } from "./store/world.ts";

/** Disks with every change's fate drawn, for each step. */
const DRAWN = 3;

/** What was asked for and what was answered, each with the number of steps that the disk had made by then. */
interface Event {
  readonly at: number;
  readonly what:
    | "sending"
    | "sent"
    | "acking"
    | "acked"
    | "putting"
    | "put"
    | "deleting"
    | "deleted"
    | "ready";
  /** Number of the last message, or hash of a blob. */
  readonly of: number | BlobHash;
}

/** A store and blobs on a disk that remembers, and what came of everything. */
class Story implements AsyncDisposable {
  readonly events: Event[];
  readonly world: World;
  #blobs: Blobs | undefined;

  private constructor(readonly disk: PowerDisk, world: World, events: readonly Event[]) {
    this.world = world;
    this.events = [...events];
  }

  /** With the person of an earlier story whose disk this one goes on with, and with what happened there. */
  static async begin(
    { disk, dataDir, person, events = [] }: {
      disk: PowerDisk;
      dataDir: string;
      person?: Person;
      events?: readonly Event[];
    },
  ): Promise<{ story: Story; person: Person }> {
    const story = new Story(disk, await World.make(() => openOn(disk, dataDir)), events);
    const somebody = person ?? await story.world.person();
    story.note("ready", 0);
    story.#blobs = blobsOf(story.world.store as FileStore, await BlobFiles.open(dataDir, { disk }));
    return { story, person: somebody };
  }

  get blobs(): Blobs {
    return this.#blobs!;
  }

  note(what: Event["what"], of: Event["of"]): void {
    this.events.push({ at: this.disk.stepCount, what, of });
  }

  /** Messages `first` to `last` to the person's own queue, all at once: their sequence numbers are these. */
  async send(person: Person, first: number, last: number): Promise<void> {
    this.note("sending", last);
    const numbers = Array.from({ length: last - first + 1 }, (_, index) => first + index);
    await Promise.all(numbers.map((number) => {
      const payload = utf8(`${number} `.padEnd(number % 3 === 0 ? 2000 : 20));
      const parts = [{ payload, recipients: [person.deviceId] }];
      return this.world.send(person, [], { parts, limits: GENEROUS });
    }));
    this.note("sent", last);
  }

  async ack(person: Person, through: number): Promise<void> {
    this.note("acking", through);
    await this.world.store.ack(person.deviceId, through);
    this.note("acked", through);
  }

  async put(person: Person, bytes: Uint8Array): Promise<BlobHash> {
    const hash = hex(await sha256(bytes)) as BlobHash;
    this.note("putting", hash);
    const body = ReadableStream.from([bytes]);
    await this.blobs.put({ owner: person.accountId, hash, bytes: bytes.length, ttlMs: 0, body });
    this.note("put", hash);
    return hash;
  }

  async delete(person: Person, hash: BlobHash): Promise<void> {
    this.note("deleting", hash);
    await this.blobs.delete({ owner: person.accountId, hash });
    this.note("deleted", hash);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.world[Symbol.asyncDispose]();
  }
}

function openOn(disk: Disk, dataDir: string): Promise<FileStore> {
  return openFileStore({ dataDir, keys: [KEY] }, { disk });
}

function blobsOf(store: FileStore, files: BlobFiles): Blobs {
  const clock = new FakeClock({ now: NOON });
  const limits = { blobBytesMax: 1e6, blobQuotaBytes: 1e7, ttlDefaultMs: 1e9, ttlMaxMs: 1e9, uploadsMax: 4 };
  return new Blobs({ store, files, clock, limits });
}

/** The last number, or all hashes, of what had happened by a step. */
function numberBy(events: readonly Event[], what: Event["what"], step: number): number {
  return Math.max(0, ...events.filter((e) => e.what === what && e.at <= step).map((e) => e.of as number));
}

function hashesBy(events: readonly Event[], what: Event["what"], step: number): Set<BlobHash> {
  return new Set(events.filter((e) => e.what === what && e.at <= step).map((e) => e.of as BlobHash));
}

/** Opens what a power cut has left and compares it with what was promised by that step. */
async function check(image: Image, { events, step, person }: {
  events: readonly Event[];
  step: number;
  person: Person;
}): Promise<void> {
  await using folder = await tempFolder();
  await writeImage(image, folder.path);
  await using store = await openOn(realDisk, folder.path);
  assert.deepEqual(await store.checkIntegrity(() => {}), []);
  if (hashesBy(events, "ready", step).size === 0) return;
  const bounds = { after: 0, entriesMax: 1000, bytesMax: 1e9, now: NOON };
  const found = await store.fetchAfter({ deviceId: person.deviceId, ...bounds });
  assert.ok(found, "the person is gone");
  const by = (what: Event["what"]) => numberBy(events, what, step);
  const seqs = found.entries.map((entry) => entry.seq);
  assert.deepEqual(found.entries.map(({ payload }) => Number(utf8Text(payload))), seqs);
  const { ackedThrough, nextSeq } = found.cursor;
  assert.deepEqual(
    seqs,
    Array.from({ length: nextSeq - 1 - ackedThrough }, (_, index) => ackedThrough + 1 + index),
    "in order, without a gap",
  );
  assert.ok(nextSeq - 1 >= by("sent") && nextSeq - 1 <= by("sending"), `${nextSeq - 1} messages are there`);
  assert.ok(ackedThrough >= by("acked") && ackedThrough <= by("acking"), `acknowledged to ${ackedThrough}`);
  await checkBlobs(blobsOf(store, await BlobFiles.open(folder.path)), { events, step });
}

async function checkBlobs(blobs: Blobs, { events, step }: { events: readonly Event[]; step: number }) {
  const by = (what: Event["what"]) => hashesBy(events, what, step);
  await blobs.removeOrphans();
  const [deleting, deleted] = [by("deleting"), by("deleted")];
  for (const hash of by("put")) {
    const get = async () => {
      const { body } = await blobs.get({ hash, offset: 0, length: 0 });
      return hex(await sha256(concat(...await Array.fromAsync(body))));
    };
    if (deleted.has(hash)) await rejectsWith(get(), "blobNotFound");
    else if (!deleting.has(hash)) assert.equal(await get(), hash);
  }
}

/** The fates that are tried after a step: nothing or all of it is there, each change alone, each lost, drawn. */
function* fates(count: number, random: () => number): Generator<(uncertain: number) => Fate> {
  yield () => "lost";
  yield () => "kept";
  if (count === 0) return;
  for (let chosen = 0; chosen < count; chosen++) {
    yield (index) => index === chosen ? "kept" : "lost";
    yield (index) => index === chosen ? "lost" : "kept";
    yield (index) => index === chosen ? "torn" : "kept";
  }
  for (let drawn = 0; drawn < DRAWN; drawn++) {
    yield () => (["kept", "lost", "torn"] as const)[Math.floor(random() * 3)]!;
  }
}

/** Cuts the power after each step from `from` on; returns how many different disks that made. */
async function cutEverywhere(
  history: History,
  { events, person, from = 0 }: { events: readonly Event[]; person: Person; from?: number },
): Promise<number> {
  const seed = crypto.getRandomValues(new Uint32Array(1))[0]!;
  const random = prng(seed);
  const seen = new Set<string>();
  for (let step = from; step <= history.length; step++) {
    const before = history.slice(0, step);
    for (const fateOf of fates(uncertainSteps(before), random)) {
      const image = imageAfter(before, fateOf, random);
      const promised = events.findLastIndex((event) => event.at <= step);
      const key = `${promised} ${await digestOf(image)}`;
      if (seen.has(key)) continue;
      seen.add(key);
      try {
        await check(image, { events, step, person });
      } catch (cause) {
        const last = history[step - 1];
        const told = last && `${last.kind} ${"path" in last ? last.path : `of file ${last.file}`}`;
        throw new Error(`A power cut after step ${step} (${told}), seed ${seed}: ${cause}`, { cause });
      }
    }
  }
  return seen.size;
}

async function digestOf(image: Image): Promise<string> {
  const parts = [...image].flatMap(([path, bytes]) => [utf8(`${path} ${bytes?.length} `), bytes ?? utf8("")]);
  return hex(await sha256(concat(...parts)));
}

Deno.test("file store and blobs: a power cut after any step loses nothing acknowledged", async () => {
  await using folder = await tempFolder();
  const disk = new PowerDisk(folder.path);
  const { story, person } = await Story.begin({ disk, dataDir: folder.path });
  await using _ = story;
  await story.send(person, 1, 3);
  const blob = await story.put(person, randomBytes(3000));
  await story.send(person, 4, 4);
  await story.ack(person, 2);
  await (story.world.store as FileStore).compact();
  await story.send(person, 5, 7);
  await story.delete(person, blob);
  await story.put(person, randomBytes(200_000));
  await story.ack(person, 6);
  await (story.world.store as FileStore).compact();
  await story.send(person, 8, 8);
  const disks = await cutEverywhere(disk.history, { events: story.events, person });
  assert.ok(disks > 200, `${disks} disks`);
});

Deno.test("file store and blobs: a power cut after a kill and another start loses nothing either", async () => {
  await using folder = await tempFolder();
  const disk = new PowerDisk(folder.path);
  const { story, person } = await Story.begin({ disk, dataDir: folder.path });
  await using _ = story;
  await story.send(person, 1, 2);
  const begun = disk.stepCount;
  await (story.world.store as FileStore).compact();
  await story.put(person, utf8("a blob"));
  const { history } = disk;
  for (let killed = begun; killed <= history.length; killed++) {
    await using copy = await tempFolder();
    const past = history.slice(0, killed);
    await writeImage(imageAfter(past, () => "kept", Math.random), copy.path);
    const events = story.events.filter((event) => event.at <= killed);
    const again = { disk: new PowerDisk(copy.path, past), dataDir: copy.path, person, events };
    const { story: next } = await Story.begin(again);
    await using _ = next;
    await next.send(person, 3, 3);
    await next.put(person, utf8("a blob"));
    const after = again.disk.stepCount;
    await cutEverywhere(again.disk.history, { events: next.events, person, from: after });
  }
});
