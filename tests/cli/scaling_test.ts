/** The sizing calculator: its answer follows the measured figures, and it says what is too much for one process. */
import assert from "node:assert/strict";
import type { Figures } from "../../ops/scaling/figures.ts";
import { DEFAULT_DEMAND, type Demand, describe, readDemand, sizeFor } from "../../ops/scaling/sizing.ts";

const MIB = 1024 ** 2;
/** Round figures, so that the answers can be counted by hand. */
const FIGURES: Figures = {
  format: 1,
  version: "0",
  day: "2026-01-01",
  machine: { processor: "x", cores: 2, memoryBytes: 1, system: "x", deno: "x", fsyncMs: 1, loadBefore: 0 },
  quick: false,
  memory: {
    connections: 100,
    baseBytes: 100 * MIB,
    idleBytes: 1000,
    waitingBytes: 1000,
    subscribedBytes: 2000,
  },
  work: {
    connect: { cpuMs: 4, mainMs: 2 },
    login: { cpuMs: 10, mainMs: 1 },
    message: { cpuMs: 2, mainMs: 1 },
    recipient: { cpuMs: 0.2, mainMs: 0.1 },
  },
  throughput: [],
  disk: [
    { backend: "sqlcipher", bytes512: 1000, bytes4096: 4584, bytesRecipient: 50 },
    { backend: "file", bytes512: 800, bytes4096: 4384, bytesRecipient: 40 },
  ],
  keyChange: [],
};
/** A message a second on average, ten at the peak. */
const DEMAND: Demand = {
  ...DEFAULT_DEMAND,
  users: 864,
  devices: 2,
  online: 0.5,
  messages: 100,
  recipients: 4,
  size: 1512,
  waitingDays: 2,
  peak: 10,
  filesMib: 1,
  fileDays: 10,
  backups: 3,
};

Deno.test("sizeFor() counts connections and memory with a margin of two", () => {
  const { connections, memoryBytes } = sizeFor(DEMAND, FIGURES);
  assert.equal(connections, 864);
  assert.equal(memoryBytes, 100 * MIB + 864 * 2000 * 2);
});

Deno.test("sizeFor() takes a push for every recipient that is there and storing for every one that is not", () => {
  const { messagesPerSecond, cores } = sizeFor(DEMAND, FIGURES);
  assert.deepEqual(messagesPerSecond, { average: 1, peak: 10 });
  // Of 3 further recipients half are there: (1 + 1.5) deliveries and 1.5 that are only stored.
  assert.ok(Math.abs(cores.main - 10 * (2.5 * 1 + 1.5 * 0.1) / 1000) < 1e-9);
  assert.ok(Math.abs(cores.all - 10 * (2.5 * 2 + 1.5 * 0.2) / 1000) < 1e-9);
});

Deno.test("sizeFor() stores a payload once, an entry for each recipient that is away, and room for a second copy", () => {
  const { entriesWaiting, disk } = sizeFor(DEMAND, FIGURES);
  assert.equal(entriesWaiting, 2 * 86_400 * 2);
  assert.equal(disk.storeBytes, 2 * 86_400 * 2000 + 2 * 86_400 * 2 * 50);
  assert.equal(disk.blobBytes, 864 * MIB * 10);
  assert.equal(disk.allBytes, disk.storeBytes * (1 + 3 + 1) + disk.blobBytes);
});

Deno.test("sizeFor() warns of a busy JavaScript thread, of too many connections, of the file store's bound", () => {
  assert.deepEqual(sizeFor(DEMAND, FIGURES).warnings, []);
  const warningsOf = (fields: Partial<Demand>) => sizeFor({ ...DEMAND, ...fields }, FIGURES).warnings.join();
  assert.match(warningsOf({ messages: 100_000 }), /^the JavaScript thread is the bound: 26\.50 cores/);
  assert.match(warningsOf({ users: 50_000, messages: 1 }), /^raise limits\.connections_max: 50000/);
  assert.match(warningsOf({ messages: 26_000, waitingDays: 30, peak: 0, backend: "file" }), /use sqlcipher$/);
});

Deno.test("describe() says that one process is enough, or the warnings", () => {
  assert.match(describe(DEMAND, sizeFor(DEMAND, FIGURES)), /\none server process is enough\n$/);
  const large = { ...DEMAND, messages: 100_000 };
  assert.match(describe(large, sizeFor(large, FIGURES)), /\nWARNING: the JavaScript thread/);
});

Deno.test("readDemand() reads every flag and refuses what is none", () => {
  const demand = readDemand(["--users", "7", "--waiting-days", "0.5", "--backend", "file"]);
  assert.deepEqual(demand, { ...DEFAULT_DEMAND, users: 7, waitingDays: 0.5, backend: "file" });
  assert.throws(() => readDemand(["--user", "7"]), /There is no flag --user/);
  assert.throws(() => readDemand(["--users"]), /--users is a number/);
  assert.throws(() => readDemand(["--online", "1.5"]), /--online is a number from 0 to 1: 1\.5/);
  assert.throws(() => readDemand(["--backend", "postgres"]), /--backend is sqlcipher or file/);
});
