/**
 * Accounts that exist for one bench: `bench-<run>-<number>`, one device each, with passwords that nobody can guess and
 * that therefore need no stretching: 0.15 s of Argon2id for each login would measure this side alone.
 */
import { base64url, fromHex, hex, randomBytes } from "../../base/bytes.ts";
import type { SessionId } from "../../base/ids.ts";
import type { ServerLink } from "../identity.ts";
import type { KeyStretching } from "../opaque_ristretto255.ts";
import { login, makeDevice, type OwnDevice, register, resume } from "../session.ts";
import { type BenchServer, inParallel } from "./bench_server.ts";

/** Accounts made, connected or deleted at once: more only wait for each other. */
const AT_ONCE = 16;
/** The least that Argon2id takes. */
const KEY_STRETCHING: KeyStretching = {
  "argon2id-custom": { iterations: 1, memory: 8, parallelism: 1 },
};

/** A deletion takes its queue along, which may hold a million messages. */
const DELETE_TIMEOUT_MS = 600_000;

/** What all user names of benches begin with. */
export const BENCH_NAME_PREFIX = "bench-";

/** An account's only device, logged in once. */
export interface BenchDevice {
  readonly userName: string;
  readonly password: string;
  readonly device: OwnDevice;
  readonly sessionId: SessionId;
}

/** A device's id, as messages name their recipients. */
export function recipientOf({ device }: BenchDevice): Uint8Array {
  return fromHex(device.deviceId);
}

/** The accounts of one bench. */
export class BenchAccounts {
  readonly #server: BenchServer;
  readonly #run: string;
  readonly #made: BenchDevice[];
  #nextNumber = 0;

  /** `made` are accounts that are there already. */
  constructor(server: BenchServer, options: { run: Uint8Array; made?: readonly BenchDevice[] }) {
    this.#server = server;
    this.#run = hex(options.run.subarray(-4));
    this.#made = [...options.made ?? []];
  }

  /** Makes so many accounts. */
  async make(count: number): Promise<BenchDevice[]> {
    return await inParallel(Array.from({ length: count }), AT_ONCE, async () => {
      const account = {
        userName: `${BENCH_NAME_PREFIX}${this.#run}-${this.#nextNumber++}`,
        password: base64url(randomBytes(32)),
        keyStretching: KEY_STRETCHING,
      };
      const link = await this.#server.connect();
      try {
        await register(link, account);
        const device = await makeDevice("bench");
        // Before the login: an account without a device still has to go.
        const made = { ...account, device, sessionId: "" as SessionId };
        const place = this.#made.push(made) - 1;
        const { sessionId } = await login(link, { ...account, device });
        return this.#made[place] = { ...made, sessionId };
      } finally {
        await link.connection.close();
      }
    });
  }

  /** Connects so many devices by their sessions. */
  async connect(devices: readonly BenchDevice[]): Promise<ServerLink[]> {
    return await inParallel(devices, AT_ONCE, (device) => this.resume(device));
  }

  /** Connects one device by its session. */
  async resume(device: BenchDevice): Promise<ServerLink> {
    const link = await this.#server.connect();
    try {
      await resume(link, device);
      return link;
    } catch (error) {
      await link.connection.close();
      throw error;
    }
  }

  /** Connects and logs in with the password. */
  async login(device: BenchDevice): Promise<ServerLink> {
    const link = await this.#server.connect();
    try {
      await login(link, { ...device, keyStretching: KEY_STRETCHING });
      return link;
    } catch (error) {
      await link.connection.close();
      throw error;
    }
  }

  /** Deletes all accounts but those of `kept`. */
  async deleteAll(kept: readonly BenchDevice[] = []): Promise<void> {
    const names = new Set(kept.map(({ userName }) => userName));
    const gone = this.#made.splice(0).filter(({ userName }) => !names.has(userName));
    await inParallel(gone, AT_ONCE, async (device) => {
      const link = await this.login(device);
      try {
        await link.connection.call("deleteAccount", {}, { timeoutMs: DELETE_TIMEOUT_MS });
      } finally {
        await link.connection.close();
      }
    });
  }
}
