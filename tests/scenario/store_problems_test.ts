/**
 * A store that cannot be opened: the server says what is wrong with which file and what to do, ends with exit
 * code 1 and leaves everything as it is. And a disk that is full while the server runs.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { statfs } from "node:fs/promises";
import { join } from "node:path";
import Database from "better-sqlite3-multiple-ciphers";
import { randomBytes } from "../../mod/base/bytes.ts";
import { type Ended, Program } from "../support/program.ts";
import { tempFolder } from "../support/temp_folder.ts";
import { newAccount, type Reachable } from "../support/test_client.ts";
import { canMount, mountTmpfs } from "../support/tmpfs.ts";

type Backend = "sqlcipher" | "file";

/** Where each backend's problems point to. */
const PLACES: Record<Backend, RegExp> = { sqlcipher: /data\/qpq\.db/, file: /data\/journal/ };

/** Root ignores modes unless it gives up the capabilities for it. */
const WITHOUT_OVERRIDE = Deno.uid() === 0
  ? { via: ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] }
  : {};

function serveWords(backend: Backend, ...more: string[]): string[] {
  return [
    ...["serve", "--listen", "127.0.0.1:0", "--opaque-workers", "1"],
    ...["--store-backend", backend, ...more],
  ];
}

/** Where a server listens and what admits to it. */
async function started(program: Program, cwd: string): Promise<Reachable> {
  const port = Number((await program.logged(/"listen":"127\.0\.0\.1:(\d+)","version"/))[1]);
  const fingerprint = (await program.printed(/([0-9a-f]{64})\n/))[1]!;
  const accessToken = (await Deno.readTextFile(join(cwd, "data/secrets/auth-token"))).trim();
  return { hostname: "127.0.0.1", port, fingerprint, accessToken };
}

/** A folder whose server has run, with an account and messages, and ended. */
async function usedFolder(backend: Backend) {
  const folder = await tempFolder();
  await using program = new Program(serveWords(backend), { cwd: folder.path });
  await using alice = await newAccount(await started(program, folder.path), "alice");
  for (let i = 0; i < 20; i++) await alice.enqueue([alice.deviceId], { payload: randomBytes(3000) });
  program.signal("SIGTERM");
  assert.equal((await program.ended()).code, 0);
  return folder;
}

/** Contents and modes of everything in the data folder, but the lock, which holds the last server's pid. */
async function imageOf(folder: string): Promise<Record<string, string>> {
  const image: Record<string, string> = {};
  const add = async (path: string) => {
    const { mode, isDirectory } = await Deno.lstat(path);
    const content = isDirectory ? "" : createHash("sha256").update(await Deno.readFile(path)).digest("hex");
    image[path] = `${mode!.toString(8)} ${content}`;
    if (isDirectory) { for await (const entry of Deno.readDir(path)) await add(join(path, entry.name)); }
  };
  await add(join(folder, "data"));
  delete image[join(folder, "data", "lock")];
  return image;
}

/** A start that must fail: exit code 1, one line that names the place and the remedy, nothing changed. */
async function refused(
  folder: string,
  expected: { backend: Backend; place?: RegExp; remedy: RegExp; words?: string[]; via?: readonly string[] },
): Promise<Ended> {
  const before = await imageOf(folder);
  const { backend, words = [], via } = expected;
  const ended = await Program.run(serveWords(backend, ...words), { cwd: folder, ...(via ? { via } : {}) });
  assert.equal(ended.code, 1, ended.err);
  const told = ended.err.split("\n").filter((line) => line.startsWith("error: "));
  assert.equal(told.length, 1, ended.err);
  assert.match(told[0]!, expected.place ?? PLACES[backend]);
  assert.match(told[0]!, expected.remedy);
  assert.doesNotMatch(ended.err, /\n\s+at /, "no stack");
  assert.deepEqual(await imageOf(folder), before);
  return ended;
}

async function starts(folder: string, backend: Backend): Promise<void> {
  await using program = new Program(serveWords(backend), { cwd: folder });
  await program.logged(/"msg":"listening"/);
  program.signal("SIGTERM");
  assert.equal((await program.ended()).code, 0);
}

/** The file that holds the store's data, and bytes of its own version in it. */
async function mainFile(folder: string, backend: Backend): Promise<string> {
  if (backend === "sqlcipher") return join(folder, "data", "qpq.db");
  const journal = join(folder, "data", "journal");
  const names = (await Array.fromAsync(Deno.readDir(journal))).map((entry) => entry.name).sort();
  return join(journal, names.at(-1)!);
}

async function writeVersion(folder: string, backend: Backend): Promise<void> {
  const path = await mainFile(folder, backend);
  if (backend === "sqlcipher") {
    const database = new Database(path);
    const key = (await Deno.readTextFile(join(folder, "data/secrets/db-key"))).trim();
    database.pragma("cipher='sqlcipher'");
    database.pragma("legacy=4");
    database.pragma(`key="x'${key}'"`);
    database.pragma("user_version = 999");
    database.close();
    return;
  }
  const bytes = await Deno.readFile(path);
  new DataView(bytes.buffer).setUint16(8, 999);
  bytes.set(createHash("sha256").update(bytes.subarray(0, 112)).digest().subarray(0, 16), 112);
  await Deno.writeFile(path, bytes);
}

for (const backend of ["sqlcipher", "file"] as const) {
  Deno.test(`a wrong key is told, and nothing is changed (${backend})`, async () => {
    await using folder = await usedFolder(backend);
    const key = join(folder.path, "other-key");
    await Deno.writeTextFile(key, "cd".repeat(32), { mode: 0o600 });
    const words = ["--db-key-file", key];
    await refused(folder.path, {
      backend,
      words,
      remedy: /put back the one it was made with|give the db_key that the store was made with/,
    });
    await Deno.writeTextFile(key, "a passphrase", { mode: 0o600 });
    await refused(folder.path, {
      backend,
      words,
      remedy: /put back the one it was made with|give the db_key that the store was made with/,
    });
    await starts(folder.path, backend);
  });

  Deno.test(`a damaged file is told with how to restore, and nothing is changed (${backend})`, async () => {
    await using folder = await usedFolder(backend);
    const path = await mainFile(folder.path, backend);
    const whole = await Deno.readFile(path);
    const damaged = whole.slice();
    damaged.fill(0x5a, 0, 100);
    for (const bytes of [damaged, randomBytes(whole.length), whole.subarray(0, 50), new Uint8Array(0)]) {
      await Deno.writeFile(path, bytes);
      await refused(folder.path, { backend, remedy: /[Rr]estore/ });
    }
    await Deno.writeFile(path, whole);
    await starts(folder.path, backend);
  });

  Deno.test(`a store of a newer version is told (${backend})`, async () => {
    await using folder = await usedFolder(backend);
    await writeVersion(folder.path, backend);
    await refused(folder.path, { backend, remedy: /newer version.*(run|install) that version/ });
  });

  Deno.test(`a folder in use is told with the process that has it (${backend})`, async () => {
    await using folder = await usedFolder(backend);
    await using running = new Program(serveWords(backend), { cwd: folder.path });
    await running.logged(/"msg":"listening"/);
    const ended = await Program.run(serveWords(backend), { cwd: folder.path });
    assert.equal(ended.code, 1);
    assert.match(
      ended.err,
      /error: The data folder \.\/data is in use by process \d+: stop that server first/,
    );
    running.signal("SIGTERM");
    assert.equal((await running.ended()).code, 0);
  });

  Deno.test(`a missing key beside a store is never made anew (${backend})`, async () => {
    await using folder = await usedFolder(backend);
    const key = join(folder.path, "data/secrets/db-key");
    const text = await Deno.readTextFile(key);
    await Deno.remove(key);
    const remedy = /secrets\/db-key does not: put the key back.*db_key_file/;
    await refused(folder.path, { backend, remedy });
    await Deno.writeTextFile(key, text, { mode: 0o600 });
    await starts(folder.path, backend);
  });

  Deno.test(`a read-only data folder is told (${backend})`, async () => {
    await using folder = await usedFolder(backend);
    for (const path of ["data", "data/journal"]) {
      await Deno.chmod(join(folder.path, path), 0o500).catch(() => {});
    }
    await refused(folder.path, { backend, place: /data/, remedy: /writable/, ...WITHOUT_OVERRIDE });
    await Deno.chmod(join(folder.path, "data"), 0o700);
  });

  Deno.test(`a store whose file may not be written is told (${backend})`, async () => {
    await using folder = await usedFolder(backend);
    await Deno.chmod(await mainFile(folder.path, backend), 0o400);
    await refused(folder.path, { backend, remedy: /writable/, ...WITHOUT_OVERRIDE });
  });

  Deno.test(`the other backend's data is told (${backend})`, async () => {
    await using folder = await usedFolder(backend);
    const other = backend === "file" ? "sqlcipher" : "file";
    const remedy = new RegExp(`holds a store of the ${backend} backend.*set store_backend to ${backend}`);
    await refused(folder.path, { backend: other, place: PLACES[backend], remedy });
  });
}

/** A data folder on a disk that the test can fill: its own small file system, or a limit on the size of files. */
interface SmallDisk extends AsyncDisposable {
  readonly path: string;
  readonly via: readonly string[];
  /** What the server says at the end of all space, to its clients and on /readyz. */
  readonly refusal: "storeFull" | "storeUnavailable";
  readonly reason: RegExp;
  /** Leaves about `freeBytes`; false where only the end of all space can be had. */
  fill(pid: number, freeBytes: number): Promise<boolean>;
  makeRoom(pid: number): Promise<void>;
}

async function smallDisk(): Promise<SmallDisk> {
  const folder = await tempFolder();
  if (!await canMount()) return limitedFiles(folder);
  const mounted = await mountTmpfs(folder.path, "24m");
  const filler = join(folder.path, "filler");
  return {
    path: folder.path,
    via: [],
    refusal: "storeFull",
    reason: /disk is nearly full|is full/,
    async fill(_pid, freeBytes) {
      using file = await Deno.open(filler, { append: true, create: true });
      const block = new Uint8Array(4096);
      const { bavail, bsize } = await statfs(folder.path);
      for (let left = bavail * bsize - freeBytes; left > 0; left -= block.length) await file.write(block);
      return true;
    },
    makeRoom: () => Deno.remove(filler),
    async [Symbol.asyncDispose]() {
      await mounted[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

/** Where nothing can be mounted: no file may become larger (the signal for it ignored, so that writes fail). */
function limitedFiles(folder: { path: string } & AsyncDisposable): SmallDisk {
  const limit = async (pid: number, bytes: string) => {
    const args = [`--pid=${pid}`, `--fsize=${bytes}:unlimited`];
    const { success } = await new Deno.Command("prlimit", { args }).output();
    assert.ok(success, "prlimit");
  };
  return {
    path: folder.path,
    via: ["sh", "-c", `trap '' XFSZ; exec "$@"`, "sh"],
    refusal: "storeUnavailable",
    reason: /the store cannot be written/,
    async fill(pid, freeBytes) {
      if (freeBytes > 0) return false;
      await limit(pid, "100000");
      return true;
    },
    makeRoom: (pid) => limit(pid, "unlimited"),
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  };
}

async function readyz(port: number): Promise<{ status: number; store: { ok: boolean; reason?: string } }> {
  const response = await fetch(`http://127.0.0.1:${port}/readyz`);
  const { checks } = await response.json();
  const store = checks.find((check: { name: string }) => check.name === "store");
  return { status: response.status, store };
}

async function assertNotReady(port: number, reason: RegExp): Promise<void> {
  const { status, store } = await readyz(port);
  assert.deepEqual([status, store.ok], [503, false]);
  assert.match(store.reason!, reason);
}

for (const backend of ["sqlcipher", "file"] as const) {
  Deno.test(`a disk that fills up refuses what is new, serves the rest, and recovers by itself (${backend})`, async () => {
    await using disk = await smallDisk();
    const words = ["--metrics-enabled", "--metrics-listen", "127.0.0.1:0", "--disk-reserve-bytes", "1MiB"];
    await using program = new Program(serveWords(backend, ...words), { cwd: disk.path, via: disk.via });
    const server = await started(program, disk.path);
    const http = Number((await program.printed(/http:\/\/127\.0\.0\.1:(\d+)\//))[1]);
    await using alice = await newAccount(server, "alice");
    await using bob = await newAccount(server, "bob");
    const send = () =>
      alice.enqueue([bob.deviceId], { payload: randomBytes(200_000) }).then(
        () => "ok",
        (error) => error.code,
      );
    const fetchAfter = async (after: bigint) =>
      (await bob.connection.call("fetch", { after })).entries.map((entry) => entry.seq);
    for (let i = 0; i < 5; i++) assert.equal(await send(), "ok");
    assert.equal((await readyz(http)).status, 200);

    if (await disk.fill(program.pid, 512 * 1024)) {
      await assertNotReady(http, /nearly full: \d+ bytes are free.*disk_reserve_bytes/);
      assert.equal(await send(), "storeFull");
      assert.deepEqual(await fetchAfter(0n), [1n, 2n, 3n, 4n, 5n]);
      assert.equal((await bob.connection.call("ack", { through: 2n })).deleted, 2n);
      await using again = await bob.again(server);
      assert.equal((await again.connection.call("fetch", {})).entries.length, 3);
    }
    await disk.fill(program.pid, 0);
    const outcomes = await Promise.all(Array.from({ length: 10 }, send));
    assert.deepEqual([...new Set(outcomes)], [disk.refusal]);
    await assertNotReady(http, disk.reason);
    await bob.connection.call("ping", {});

    await disk.makeRoom(program.pid);
    assert.equal((await readyz(http)).status, 200);
    assert.equal(await send(), "ok");
    await using back = await bob.again(server);
    const { entries } = await back.connection.call("fetch", { after: 5n });
    assert.deepEqual(entries.map((entry) => entry.seq), [6n]);
    await back.connection.call("ack", { through: 6n });
    program.signal("SIGTERM");
    assert.equal((await program.ended()).code, 0);
  });
}
