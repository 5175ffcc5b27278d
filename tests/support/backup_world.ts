/** A data folder of a stopped server with people, messages and blobs in its store, and operations on it. */
import { join } from "node:path";
import { hex, randomBytes, sha256 } from "../../mod/base/bytes.ts";
import type { BlobHash } from "../../mod/base/ids.ts";
import type { JsonObject, Operation } from "../../mod/admin/operations.ts";
import { backupCreate, backupVerify } from "../../mod/admin/backup_operations.ts";
import { runStopped } from "../../mod/admin/operations_stopped.ts";
import { backupRestore } from "../../mod/admin/restore_operation.ts";
import { diskFile } from "../../mod/config/disk_file.ts";
import { load } from "../../mod/config/load.ts";
import type { Settings } from "../../mod/config/options.ts";
import { BlobFiles } from "../../mod/store/blob_files.ts";
import { openStore, type StoreBackend } from "../../mod/store/open.ts";
import type { Store } from "../../mod/store/store.ts";
import { DAY_MS, type OpenStore, World } from "../contract/store/world.ts";

/** Backends that the program has. */
export const BACKENDS: readonly StoreBackend[] = ["sqlcipher", "file"];

/** A folder with `data/` in it; everything a test makes is beside that. */
export class BackupWorld implements AsyncDisposable {
  readonly #folder: string;
  readonly backend: StoreBackend;
  readonly key = hex(randomBytes(32));

  private constructor(folder: string, backend: StoreBackend) {
    this.#folder = folder;
    this.backend = backend;
  }

  /** With an empty store, or in `folder`, which then stays. */
  static async make(backend: StoreBackend, folder?: string): Promise<BackupWorld> {
    const world = new BackupWorld(folder ?? await Deno.makeTempDir({ prefix: "qpq-test-" }), backend);
    for (const name of ["data", "data/secrets", "data/blobs"]) {
      await Deno.mkdir(world.path(name), { mode: 0o700 });
    }
    await Deno.writeTextFile(world.path("data/secrets/db-key"), `${world.key}\n`, { mode: 0o600 });
    await (await world.open()).close();
    return world;
  }

  path(name: string): string {
    return join(this.#folder, name);
  }

  get dataDir(): string {
    return this.path("data");
  }

  settings(flags: Readonly<Record<string, string>> = {}): Settings {
    const all = { "data-dir": this.dataDir, "store-backend": this.backend, ...flags };
    return load({ env: {}, flags: all, readFile: diskFile, purpose: "tool" }).settings;
  }

  open(dataDir = this.dataDir, key = this.key): Promise<Store> {
    return openStore({ backend: this.backend, dataDir, keys: [key] });
  }

  /** Runs `work` on the store, with what the contract tests use to make people. */
  async fill<T>(work: (people: World) => Promise<T>): Promise<T> {
    const open: OpenStore = () => this.open();
    await using people = await World.make(open);
    return await work(people);
  }

  /** Two people, a message between them, KeyPackages, and a blob of each size. */
  async people(blobBytes: readonly number[] = [100, 300_000]) {
    return await this.fill(async (people) => {
      people.now = Date.now();
      const [alice, bob] = [await people.signed(await people.person()), await people.person()];
      await people.send(bob, [alice]);
      await people.upload(alice, people.keyPackages(3));
      const blobs: BlobHash[] = [];
      for (const bytes of blobBytes) blobs.push(await this.putBlob(people.store, alice.accountId, bytes));
      return { alice, bob, blobs };
    });
  }

  async putBlob(store: Store, owner: Parameters<Store["putBlobReference"]>[0]["owner"], bytes: number) {
    const content = randomBytes(bytes);
    const hash = hex(await sha256(content)) as BlobHash;
    const writer = await (await BlobFiles.open(this.dataDir)).begin();
    await writer.write(content);
    await writer.finish({ hash, bytes });
    await writer.publish(hash);
    const now = Date.now();
    const quota = { quotaBytes: 1e12, expiresAt: now + 30 * DAY_MS, dryRun: false, now };
    await store.putBlobReference({ hash, owner, bytes, ...quota });
    return hash;
  }

  run(
    operation: Operation,
    input: JsonObject = {},
    options: { flags?: Readonly<Record<string, string>>; step?: (name: string) => Promise<void> } = {},
  ): Promise<JsonObject> {
    const deviceRevokedNotice = () => ({
      entryId: hex(randomBytes(16)) as never,
      payload: new Uint8Array(1),
      expiresAt: Date.now() + DAY_MS,
    });
    const settings = this.settings(options.flags);
    const step = options.step ? { step: options.step } : {};
    return runStopped(operation, { settings, input, deviceRevokedNotice, ...step });
  }

  /** Makes a backup; its folder. */
  async backup(input: JsonObject = {}): Promise<string> {
    return (await this.run(backupCreate, input))["path"] as string;
  }

  verify(path: string, input: JsonObject = {}): Promise<JsonObject> {
    return this.run(backupVerify, { path, ...input });
  }

  restore(
    path: string,
    input: JsonObject = {},
    options: { step?: (name: string) => Promise<void> } = {},
  ): Promise<JsonObject> {
    return this.run(backupRestore, { path, to: this.path("restored"), ...input }, options);
  }

  /** What is in the folder of backups, whatever it is. */
  async inBackups(): Promise<string[]> {
    return await namesIn(join(this.dataDir, "backups"));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.#folder, { recursive: true }).catch((error) => {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    });
  }
}

/** Names in a folder, in order; none when there is none. */
export async function namesIn(folder: string): Promise<string[]> {
  try {
    return (await Array.fromAsync(Deno.readDir(folder), ({ name }) => name)).sort();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

/** Flips one bit of a file. */
export async function flipBit(path: string, at: number): Promise<void> {
  const bytes = await Deno.readFile(path);
  if (at >= bytes.length) throw new RangeError(`${path} has no byte ${at}`);
  bytes[at]! ^= 1 << (at % 8);
  await Deno.writeFile(path, bytes);
}
