/**
 * A server process on loopback whose memory, processor time and disk are read from outside (Linux' /proc). Its
 * folder is a temporary one; devices are put into its store while it is stopped, so that a thousand of them take a
 * second and not a thousand password logins.
 */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { fromHex, randomBytes } from "../../mod/base/bytes.ts";
import { type AccountId, type DeviceId, type EntryId, randomId, type SessionId } from "../../mod/base/ids.ts";
import { generateKeyPair, type KeyPair } from "../../mod/client/account_keys.ts";
import { makeDevice, type OwnDevice } from "../../mod/client/session.ts";
import { openStore, type StoreBackend } from "../../mod/store/open.ts";
import type { Store } from "../../mod/store/store.ts";
import { fingerprintText, parseFingerprint } from "../../mod/transport/fingerprint.ts";
import { inspectCertificate } from "../../mod/transport/tls.ts";

const MAIN = fileURLToPath(new URL("../../main.ts", import.meta.url));
const PERMISSIONS = ["net", "read", "write", "env", "ffi", "sys"].map((name) => `--allow-${name}`);
const PROGRAM = ["run", "--quiet", "--cached-only", "--no-check", ...PERMISSIONS, MAIN];
/** All load comes from one address and a few accounts: limits that are meant for that would be measured else. */
const WITHOUT_LIMITS = { "limits-profile": "bench", "idle-timeout": "10m" };
const CLOCK_TICKS_PER_SECOND = 100;

/** A device that can resume its session. */
export interface SeededDevice {
  readonly accountId: AccountId;
  readonly device: OwnDevice;
  readonly sessionId: SessionId;
  /** It has signed nothing yet. */
  readonly accountKey: KeyPair;
}

/** Processor time in milliseconds. */
export interface CpuTime {
  readonly all: number;
  /** Of the thread that runs JavaScript, which is one for each process. */
  readonly main: number;
}

/** One data folder, and the server on it while it runs. */
export class MeasuredServer implements AsyncDisposable {
  readonly dataDir: string;
  #child: Deno.ChildProcess | null = null;
  #log = Promise.resolve();
  #running = false;
  #port = 0;
  #fingerprint = "";
  #token = "";

  private constructor(readonly folder: string, readonly backend: StoreBackend) {
    this.dataDir = join(folder, "data");
  }

  /** Makes the folder below `base`. */
  static async make(backend: StoreBackend, base: string | null): Promise<MeasuredServer> {
    const folder = await Deno.makeTempDir({
      prefix: "qpq-scaling-",
      ...(base === null ? {} : { dir: base }),
    });
    const server = new MeasuredServer(folder, backend);
    const args = [...PROGRAM, "init", "--data-dir", server.dataDir, "--store-backend", backend];
    const { success, stderr } = await new Deno.Command(Deno.execPath(), { args, stdin: "null" }).output();
    if (!success) throw new Error(`init failed:\n${new TextDecoder().decode(stderr)}`);
    return server;
  }

  get port(): number {
    return this.#port;
  }

  get fingerprint(): Uint8Array {
    return parseFingerprint(this.#fingerprint)!;
  }

  get token(): string {
    return this.#token;
  }

  /** Puts accounts with one device each into the store of the stopped server. */
  async seed(count: number): Promise<SeededDevice[]> {
    const dbKey = (await Deno.readTextFile(join(this.dataDir, "secrets", "db-key"))).trim();
    await using store = await openStore({ backend: this.backend, dataDir: this.dataDir, keys: [dbKey] });
    return await Promise.all(Array.from({ length: count }, (_, index) => seedOne(store, `load-${index}`)));
  }

  /** Starts it on a free port; without limits unless other flags are given. */
  async start(flags: Readonly<Record<string, string>> = WITHOUT_LIMITS): Promise<void> {
    const own = {
      "data-dir": this.dataDir,
      listen: "127.0.0.1:0",
      "store-backend": this.backend,
      log: "info",
    };
    const words = Object.entries({ ...flags, ...own }).flatMap((
      [name, value],
    ) => [`--${name}`, value]);
    const child = new Deno.Command(Deno.execPath(), {
      args: [...PROGRAM, "serve", ...words],
      env: { QPQ_LOG_FORMAT: "json" },
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).spawn();
    this.#child = child;
    this.#running = true;
    child.status.then(() => this.#running = false);
    const listening = Promise.withResolvers<number>();
    this.#log = readLog(child.stderr, listening);
    this.#port = await listening.promise;
    const pem = await Deno.readTextFile(join(this.dataDir, "tls", "server.pem"));
    this.#fingerprint = fingerprintText(inspectCertificate(pem).leafSha256);
    this.#token = (await Deno.readTextFile(join(this.dataDir, "secrets", "auth-token"))).trim();
  }

  /** True until it ends. */
  get isRunning(): boolean {
    return this.#running;
  }

  /** Stops it as an operator does; its store is then in its files alone. */
  async stop(): Promise<void> {
    if (!this.#child) return;
    this.#child.kill("SIGTERM");
    await this.#child.status;
    await this.#log;
    this.#child = null;
  }

  /** Resident memory, once it no longer changes. */
  async settledMemory(): Promise<number> {
    let last = await this.residentBytes();
    for (let round = 0; round < 10; round++) {
      await new Promise((resolve) => setTimeout(resolve, 500));
      const now = await this.residentBytes();
      if (Math.abs(now - last) < last / 200) return now;
      last = now;
    }
    return last;
  }

  /** Resident memory now. */
  async residentBytes(): Promise<number> {
    const text = await Deno.readTextFile(`/proc/${this.#child!.pid}/status`);
    return Number(/^VmRSS:\s+(\d+) kB$/m.exec(text)![1]) * 1024;
  }

  /** Processor time since its start. */
  async cpu(): Promise<CpuTime> {
    const { pid } = this.#child!;
    return {
      all: await processorMs(`/proc/${pid}/stat`),
      main: await threadMs(`/proc/${pid}/task/${pid}/schedstat`),
    };
  }

  /** Bytes of the SQLCipher store's write-ahead log. */
  async walBytes(): Promise<number> {
    return await bytesOf(join(this.dataDir, "qpq.db-wal"));
  }

  /** Bytes of its store's files, blobs left out. */
  async storeBytes(): Promise<number> {
    if (this.backend === "file") return await bytesBelow(join(this.dataDir, "journal"));
    const sizes = ["qpq.db", "qpq.db-wal"].map((name) => bytesOf(join(this.dataDir, name)));
    return (await Promise.all(sizes)).reduce((sum, bytes) => sum + bytes, 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    await Deno.remove(this.folder, { recursive: true });
  }
}

async function seedOne(store: Store, userName: string): Promise<SeededDevice> {
  const accountId = randomId<AccountId>();
  const sessionId = randomId<SessionId>();
  const now = Date.now();
  const device = await makeDevice("load");
  const accountKey = await generateKeyPair();
  await store.createAccount({
    accountId,
    userName,
    // Nobody logs in with it: the session below is resumed.
    credential: { suiteId: 1, setupId: 1, record: randomBytes(192), wrappedAccountKey: randomBytes(73) },
    accountKey: accountKey.publicKey,
    invitationSha256: null,
    now,
  });
  const made = await store.createSession({
    sessionId,
    accountId,
    deviceId: device.deviceId,
    deviceKey: device.key.publicKey,
    deviceName: device.name,
    devicesMax: 10,
    deviceAddedNotice: { entryId: randomId<EntryId>(), payload: new Uint8Array(0), expiresAt: now },
    now,
  });
  if (made.status !== "created") throw new Error(`Cannot make a device: ${made.status}`);
  return { accountId, device, sessionId, accountKey };
}

/** The bytes of a device's id, as messages name their recipients. */
export function idBytes(deviceId: DeviceId): Uint8Array {
  return fromHex(deviceId);
}

async function readLog(
  stream: ReadableStream<Uint8Array>,
  listening: PromiseWithResolvers<number>,
): Promise<void> {
  let text = "";
  for await (const chunk of stream.pipeThrough(new TextDecoderStream())) {
    text = (text + chunk).slice(-20_000);
    const port = /"msg":"listening".*?"listen":"127\.0\.0\.1:(\d+)"/.exec(text)?.[1];
    if (port !== undefined) listening.resolve(Number(port));
  }
  listening.reject(new Error(`The server ended:\n${text}`));
  listening.promise.catch(() => {}); // once it listened nobody waits any more
}

/** User and system time of a stat file; its second field, a name in brackets, may hold spaces. */
async function processorMs(path: string): Promise<number> {
  const fields = (await Deno.readTextFile(path)).replace(/^.*\) /, "").split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 1000 / CLOCK_TICKS_PER_SECOND;
}

/** Nanoseconds on a processor are the first field: finer than the ticks of a stat file. */
async function threadMs(path: string): Promise<number> {
  return Number((await Deno.readTextFile(path)).split(" ")[0]) / 1e6;
}

async function bytesOf(path: string): Promise<number> {
  return await Deno.stat(path).then(({ size }) => size, () => 0);
}

async function bytesBelow(folder: string): Promise<number> {
  let sum = 0;
  for await (const { name, isFile } of Deno.readDir(folder)) {
    if (isFile) sum += await bytesOf(join(folder, name));
  }
  return sum;
}
