/**
 * Rounds of kill -9: a server process under mixed load, alone or while it makes a backup, changes a key or takes a
 * blob, dies at a random moment; it is started again, and what it promised is looked at.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import type { JsonObject } from "../../mod/admin/control.ts";
import type { StoreBackend } from "../../mod/store/open.ts";
import { foreignPair } from "./certificates.ts";
import { copyFolder } from "./copy_folder.ts";
import { CrashLedger, type CrashTotals } from "./crash_ledger.ts";
import {
  checkPromises,
  claimOne,
  clientsAgain,
  type CrashClients,
  CrashLoad,
  newClients,
} from "./crash_load.ts";
import { prng } from "./prng.ts";
import { freeUdpPort, ServerProcess } from "./server_process.ts";
import { control } from "./steady_clients.ts";
import { tempFolder } from "./temp_folder.ts";

const SENDERS = 6;
/** The moment of death: after so many replies, or chunks of blobs, at most. */
const MOMENTS: Readonly<Record<string, ["reply" | "chunk", number]>> = {
  load: ["reply", 400],
  blob: ["chunk", 12],
};
const UNITS = { reply: "replies", chunk: "chunks" };
/** Most operations are over soon. */
const OPERATION_REPLIES_MAX = 60;

/** What a server does beside its load when it dies. */
const DURING: readonly { name: string; input: () => Promise<JsonObject> }[] = [
  { name: "backup create", input: async () => ({}) },
  { name: "rotate db-key", input: async () => ({}) },
  { name: "rotate tls", input: async () => ({ renew: true, now: true }) },
  { name: "rotate auth-token", input: async () => ({ overlapMs: 3_600_000 }) },
  { name: "rotate opaque", input: async () => ({}) },
  { name: "rotate federation", input: async () => ({ ...await foreignPair() }) },
];
const KINDS = ["load", "blob", ...DURING.map(({ name }) => name)];

/** What to do. */
export interface CrashRun {
  readonly backend: StoreBackend;
  readonly kills: number;
  readonly seed: number;
  /** Told after each round. */
  readonly onRound?: (line: string) => void;
  /** Asked before each round: true ends the run before all kills are done. */
  readonly enough?: () => boolean;
  /** A broken promise leaves a copy of the data folder, as the server had it, and says where. */
  readonly keepBroken?: boolean;
}

/** Runs it; throws with the seed and the round when a promise was broken. */
export async function runCrashes(run: CrashRun): Promise<CrashTotals> {
  const { backend, kills, seed, onRound = () => {}, enough = () => false } = run;
  await using folder = await tempFolder();
  const story = new CrashStory(folder.path, backend, prng(seed));
  await using _ = story;
  await story.begin();
  for (let round = 0; round < kills && !enough(); round++) {
    const kind = KINDS[round % KINDS.length]!;
    const told = `${backend}, seed ${seed}, round ${round} (${kind})`;
    try {
      onRound(`${told}: ${await story.round(kind)}`);
    } catch (cause) {
      const kept = run.keepBroken ? `\nthe data folder is kept in ${await story.keep()}` : "";
      throw new Error(`${told}: ${cause}${kept}\n${story.log}`, { cause });
    }
  }
  await story.end();
  return story.ledger.totals;
}

/** One data folder and the processes that serve it, one after another. */
class CrashStory implements AsyncDisposable {
  readonly ledger = new CrashLedger(SENDERS);
  readonly #dataDir: string;
  readonly #port = freeUdpPort();
  readonly #backend: StoreBackend;
  readonly #random: () => number;
  #server!: ServerProcess;
  #clients!: CrashClients;

  constructor(dataDir: string, backend: StoreBackend, random: () => number) {
    this.#dataDir = dataDir;
    this.#backend = backend;
    this.#random = random;
  }

  get log(): string {
    return this.#server.log;
  }

  async begin(): Promise<void> {
    await this.#start();
    this.#clients = await newClients(this.#server);
  }

  async #start(): Promise<void> {
    const flags = ["--store-backend", this.#backend, "--limits-profile", "bench"];
    this.#server = await ServerProcess.start({ dataDir: this.#dataDir, port: this.#port, flags });
  }

  /** A life and death of the server, and what is found afterwards; returns how it went. */
  async round(kind: string): Promise<string> {
    const { moment, loginLost } = await this.#liveUntilKilled(kind);
    await this.#start();
    this.#clients = await clientsAgain(this.#clients, { server: this.#server, loginLost });
    await checkPromises(this.#clients, this.ledger);
    assert.deepEqual(await this.#integrity(), []);
    await this.#removeLeftovers();
    return moment;
  }

  /** Has the load, and the operation, go on until the moment has come. */
  async #liveUntilKilled(kind: string): Promise<{ moment: string; loginLost: boolean }> {
    const [counted, most] = MOMENTS[kind] ?? ["reply", OPERATION_REPLIES_MAX];
    const after = Math.floor(this.#random() * most);
    const dying = new AbortController();
    let [left, killed] = [after, undefined as Promise<void> | undefined];
    const load = new CrashLoad({
      ...{ server: this.#server, clients: this.#clients, ledger: this.ledger, random: this.#random },
      dying: dying.signal,
      onProgress: (what) => {
        if (what === counted && left-- <= 0) killed ??= this.#kill(dying);
      },
    });
    const operation = this.#operate(kind).then(() => "over", (error) => {
      if (!dying.signal.aborted) throw error;
      return "under way";
    });
    operation.catch(() => {}); // told below, when the load has ended
    await load.run();
    await killed;
    this.#clients = { ...this.#clients, visitor: load.visitor };
    const moment = `killed after ${after} ${UNITS[counted]}, the operation was ${await operation}`;
    return { moment, loginLost: load.loginLost };
  }

  async #operate(kind: string): Promise<void> {
    const during = DURING.find(({ name }) => name === kind);
    if (during) await control(this.#dataDir, during.name, await during.input());
  }

  /** Without the close each open call would wait for the idle timeout of a peer that is gone. */
  async #kill(dying: AbortController): Promise<void> {
    dying.abort();
    await this.#server.end("SIGKILL");
    for (const { link } of Object.values(this.#clients)) link.transport.close(0, "the server is gone");
  }

  async #integrity(): Promise<string[]> {
    const { checks } = await control(this.#dataDir, "doctor") as { checks: JsonObject[] } & JsonObject;
    const database = checks.filter((check) => check["name"] === "database");
    assert.equal(database.length, 1);
    return database.filter((check) => check["status"] !== "ok").map((check) => JSON.stringify(check));
  }

  /**
   * Old stores and backups are kept until somebody removes them; half ones may not be there. The temporary file of a
   * small write that was killed may: doctor tells of it.
   */
  async #removeLeftovers(): Promise<void> {
    for await (const { name } of Deno.readDir(this.#dataDir)) {
      assert.doesNotMatch(name, /\.(rekeying|rekeyed|checking)/);
      if (/\.old-\d+$/.test(name)) await Deno.remove(join(this.#dataDir, name), { recursive: true });
    }
    const backups = (await control(this.#dataDir, "backup list"))["backups"] as JsonObject[];
    for (const { path } of backups) {
      const verified = await control(this.#dataDir, "backup verify", { path: path! });
      assert.deepEqual(verified["problems"], []);
      await Deno.remove(path as string, { recursive: true });
    }
  }

  /** Nobody was given a KeyPackage twice to the last one; and the server ends as it should. */
  async end(): Promise<void> {
    while (await claimOne(this.#clients.sender, this.ledger) > 0);
    await this.#disconnect();
    assert.equal(await this.#server.end("SIGTERM"), 0);
  }

  /** Ends the server where it is, and returns where a copy of its data is. */
  async keep(): Promise<string> {
    await this.#server.end("SIGKILL");
    const path = await Deno.makeTempDir({ prefix: "qpq-crash-" });
    await copyFolder(this.#dataDir, path);
    return path;
  }

  async #disconnect(): Promise<void> {
    await Promise.all(Object.values(this.#clients).map((client) => client[Symbol.asyncDispose]()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server[Symbol.asyncDispose]();
    await this.#disconnect();
  }
}
