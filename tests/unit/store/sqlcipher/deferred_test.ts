/**
 * Rows that are written later make no difference: whatever is done, in whatever batches, a store that puts rows off
 * answers as one that writes all of them after each batch, and holds the same after a kill at any moment.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { hex } from "../../../../mod/base/bytes.ts";
import { BatchRunner } from "../../../../mod/store/sqlcipher/batch.ts";
import { checkDatabase } from "../../../../mod/store/sqlcipher/check.ts";
import type { GenerationSize } from "../../../../mod/store/sqlcipher/deferred.ts";
import type { ExportPage, ExportPosition } from "../../../../mod/store/sqlcipher/export_rows.ts";
import { MessageWriter } from "../../../../mod/store/sqlcipher/message_codec.ts";
import { openDatabase } from "../../../../mod/store/sqlcipher/open_database.ts";
import type { VerbName } from "../../../../mod/store/sqlcipher/verb_names.ts";
import type { Outcome } from "../../../../mod/store/sqlcipher/wire.ts";
import type { NewMessage } from "../../../../mod/store/store.ts";
import type { StoreRow } from "../../../../mod/store/store_rows.ts";
import { DAY_MS, HOUR_MS, NOON, WIDE_LIMITS } from "../../../contract/store/world.ts";
import { copyFolder } from "../../../support/copy_folder.ts";
import { prng } from "../../../support/prng.ts";
import { tempFolder } from "../../../support/temp_folder.ts";

const KEY = "5f".repeat(32);
const SEEDS = 15;
const STEPS = 80;
const ACCOUNTS = 3;
const DEVICES = 7;
/** Every so many steps the server dies, */
const KILL_EACH = 6;
/** or a transaction fails at its end. */
const FAIL_EACH = 3;

/** A verb with its arguments. */
interface Step {
  readonly verb: VerbName;
  readonly args: readonly unknown[];
}

/** A database with its runner, in this thread. */
class Opened implements Disposable {
  readonly runner: BatchRunner;

  constructor(readonly dataDir: string, size?: GenerationSize) {
    const { connection, reopen } = openDatabase({ dataDir, keys: [KEY] });
    this.runner = new BatchRunner(connection, reopen, size);
  }

  run(steps: readonly Step[]): { outcomes: readonly Outcome[]; touched: unknown } {
    const writer = new MessageWriter();
    const calls = steps.map(({ verb, args }) =>
      verb === "enqueue" ? { verb, args: writer.write(args[0] as NewMessage) } : { verb, args }
    );
    const { outcomes, enqueued } = this.runner.run(calls, writer.buffer);
    return { outcomes, touched: enqueued };
  }

  /** Runs messages in a transaction that fails when everything else is written. */
  fail(steps: readonly Step[]): void {
    const { connection } = this.runner;
    connection.exec(
      "CREATE TEMP TRIGGER fails BEFORE INSERT ON deferred_rows BEGIN SELECT raise(ABORT, 'no'); END",
    );
    this.run(steps);
    connection.exec("DROP TRIGGER fails");
  }

  content(): StoreRow[] {
    const rows: StoreRow[] = [];
    let position: ExportPosition | null = null;
    do {
      const { outcomes: [outcome] } = this.run([{ verb: "exportPage", args: [position] }]);
      const page = (outcome as { value: ExportPage }).value;
      rows.push(...page.rows);
      position = page.next;
    } while (position);
    return rows;
  }

  [Symbol.dispose](): void {
    this.runner.close();
  }
}

/** What is done, out of a seed. */
class Story {
  now = NOON;
  readonly random: () => number;
  readonly #accounts: string[];
  readonly #devices: { accountId: string; deviceId: string }[] = [];
  /** Newer messages; some are sent again. */
  readonly #sent: NewMessage[] = [];

  constructor(seed: number) {
    this.random = prng(seed);
    this.#accounts = Array.from({ length: ACCOUNTS }, () => this.#id());
  }

  below(bound: number): number {
    return Math.floor(this.random() * bound);
  }

  #bytes(count: number): Uint8Array<ArrayBuffer> {
    return Uint8Array.from({ length: count }, () => this.below(256));
  }

  #id(): string {
    return hex(this.#bytes(16));
  }

  #pick<Item>(items: readonly Item[]): Item {
    return items[this.below(items.length)]!;
  }

  #notice() {
    return { entryId: this.#id(), payload: this.#bytes(5), expiresAt: this.now + this.below(40) * HOUR_MS };
  }

  beginnings(): Step[] {
    const accounts = this.#accounts.map((accountId, index): Step => ({
      verb: "createAccount",
      args: [{
        ...{ accountId, userName: `person-${index}`, accountKey: this.#bytes(32), invitationSha256: null },
        credential: { suiteId: 1, setupId: 1, record: this.#bytes(9), wrappedAccountKey: this.#bytes(9) },
        now: this.now,
      }],
    }));
    return [...accounts, ...Array.from({ length: DEVICES }, () => this.#newDevice())];
  }

  #newDevice(): Step {
    const accountId = this.#pick(this.#accounts);
    const deviceId = this.#id();
    this.#devices.push({ accountId, deviceId });
    return {
      verb: "createSession",
      args: [{
        ...{ sessionId: this.#id(), accountId, deviceId, deviceKey: this.#bytes(32), deviceName: "laptop" },
        ...{ devicesMax: 9, deviceAddedNotice: this.#notice(), now: this.now },
      }],
    };
  }

  /** A message from the first device to itself. */
  own(): Step {
    const { accountId, deviceId } = this.#devices[0]!;
    const parts = [{ payload: this.#bytes(9), recipients: [deviceId] }];
    const sender = { senderAccount: accountId, senderDevice: deviceId, origin: null };
    return { verb: "enqueue", args: [{ ...this.#newMessage(), ...sender, parts }] };
  }

  /** The first device has read everything up to `through`, and what it has read is deleted. */
  readThrough(through: number): Step[] {
    const ack: Step = { verb: "ack", args: [this.#devices[0]!.deviceId, through] };
    return [ack, { verb: "expireEntries", args: [this.now, 1000] }];
  }

  fetchOwn(): Step {
    const { deviceId } = this.#devices[0]!;
    return {
      verb: "fetchAfter",
      args: [{ deviceId, after: 0, entriesMax: 99, bytesMax: 1e9, now: this.now }],
    };
  }

  messages(): Step[] {
    const messages = Array.from({ length: 1 + this.below(4) }, () => this.#message());
    return this.random() < 0.5 ? messages : [{ verb: "topQueues", args: [1] }, ...messages];
  }

  #message(): Step {
    const again = this.#sent.length > 0 && this.random() < 0.05;
    const message = again ? { ...this.#pick(this.#sent), now: this.now } : this.#newMessage();
    this.#sent.push(message);
    return { verb: "enqueue", args: [message] };
  }

  #newMessage(): NewMessage {
    const remote = this.random() < 0.15;
    const from = this.#pick(this.#devices);
    const parts = Array.from({ length: 1 + this.below(2) }, () => ({
      payload: this.#bytes(this.below(40)),
      recipients: Array.from({ length: 1 + this.below(3) }, () => this.#pick(this.#devices).deviceId),
    }));
    return {
      senderAccount: remote ? this.#id() : from.accountId,
      senderDevice: remote ? this.#id() : from.deviceId,
      ...{ messageId: this.#id(), requestSha256: this.#bytes(32), entryId: this.#id(), parts },
      expiresAt: this.now + (1 + this.below(100)) * HOUR_MS,
      ...{ commitsTo: [], behind: [], origin: remote ? "elsewhere.example" : null, remote: [], guard: null },
      limits: { ...WIDE_LIMITS, queueDepthMax: 40, senderShare: 0.5, senderBytesPerDay: 4000 },
      now: this.now,
    } as unknown as NewMessage;
  }

  #ack(): Step {
    return { verb: "ack", args: [this.#pick(this.#devices).deviceId, this.below(60)] };
  }

  #fetch(): Step {
    const after = this.below(30);
    const [entriesMax, bytesMax] = [1 + this.below(12), 1 + this.below(400)];
    const { deviceId } = this.#pick(this.#devices);
    return { verb: "fetchAfter", args: [{ deviceId, after, entriesMax, bytesMax, now: this.now }] };
  }

  #seldom(): Step {
    const { accountId, deviceId } = this.#pick(this.#devices);
    const kinds: (() => Step)[] = [
      () => ({ verb: "expireEntries", args: [this.now, 1 + this.below(20)] }),
      () => ({ verb: "expireMessageIds", args: [this.now - this.below(3) * DAY_MS, 50] }),
      () => ({ verb: "revokeDevice", args: [accountId, deviceId, this.#notice(), this.now] }),
      () => this.#newDevice(),
      () => ({ verb: "purgeQueue", args: [deviceId] }),
      () => ({ verb: "topQueues", args: [20] }),
      () => ({ verb: "listAccounts", args: [{ afterName: "", limit: 20 }] }),
      () => ({ verb: "findDevices", args: [{ prefix: "", limit: 20 }] }),
      () => ({ verb: "counts", args: [] }),
      () => ({ verb: "block", args: [accountId, this.#pick(this.#accounts), 5] }),
      () => ({ verb: "unblock", args: [accountId, this.#pick(this.#accounts)] }),
      // Not hexadecimal: it throws, the transaction is undone, and the batch runs again one by one.
      () => ({ verb: "touchSession", args: ["no id", this.now] }),
    ];
    return this.#pick(kinds)();
  }

  batch(): Step[] {
    this.now += this.below(4) * HOUR_MS;
    return Array.from({ length: 1 + this.below(8) }, () => {
      const chance = this.random();
      if (chance < 0.5) return this.#message();
      if (chance < 0.65) return this.#ack();
      if (chance < 0.85) return this.#fetch();
      return this.#seldom();
    });
  }
}

function problemsOf(dataDir: string): string[] {
  const steps = checkDatabase({ path: join(dataDir, "qpq.db"), key: KEY });
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
  }
}

/** A copy of the folder as a kill leaves it, opened. */
async function killed(dataDir: string, check: (copy: Opened) => void): Promise<void> {
  await using folder = await tempFolder();
  await copyFolder(dataDir, folder.path);
  {
    using copy = new Opened(folder.path);
    check(copy);
  }
  assert.deepEqual(problemsOf(folder.path), []);
}

async function tell(seed: number): Promise<void> {
  await using deferring = await tempFolder();
  await using writing = await tempFolder();
  const story = new Story(seed);
  new Opened(deferring.path)[Symbol.dispose]();
  await copyFolder(deferring.path, writing.path);
  const size = { rows: 1 + story.below(300), bytes: 100 + story.below(40_000) };
  using store = new Opened(deferring.path, size);
  using model = new Opened(writing.path);
  for (let step = 0; step < STEPS; step++) {
    const batch = step === 0 ? story.beginnings() : story.batch();
    const told = `seed ${seed}, step ${step}: ${batch.map(({ verb }) => verb).join(", ")}`;
    const [found, expected] = [store.run(batch), model.run(batch)];
    model.runner.settle();
    assert.deepEqual(found, expected, told);
    if (step % FAIL_EACH === 0) store.fail(story.messages());
    if (step % KILL_EACH === 0) {
      await killed(deferring.path, (copy) => assert.deepEqual(copy.content(), model.content(), told));
    }
  }
  assert.deepEqual(store.content(), model.content(), `seed ${seed}`);
}

Deno.test("a message after all others are gone is found after a kill", async () => {
  await using folder = await tempFolder();
  const story = new Story(SEEDS + 1);
  using store = new Opened(folder.path, { rows: 1, bytes: 1 });
  store.run(story.beginnings());
  store.run(Array.from({ length: 5 }, () => story.own()));
  const { nextSeq } = (store.run([story.own()]).touched as { standing: Float64Array }[])
    .map(({ standing }) => ({ nextSeq: standing[1]! }))[0]!;
  store.run(story.readThrough(nextSeq - 1));
  store.runner.settle();
  // It is undone, and with it what the store knows by heart.
  store.run([{ verb: "touchSession", args: ["no id", story.now] }, story.own()]);
  await killed(folder.path, (copy) => {
    const { outcomes: [outcome] } = copy.run([story.fetchOwn()]);
    const { entries } = (outcome as { value: { entries: { seq: number }[] } }).value;
    assert.deepEqual(entries.map(({ seq }) => seq), [nextSeq]);
  });
});

for (let seed = 1; seed <= SEEDS; seed++) {
  Deno.test(`a store that defers rows is as one that writes them at once (seed ${seed})`, () => tell(seed));
}
