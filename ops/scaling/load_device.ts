/** A device that makes load: resumed on a connection of its own, sending, waiting, subscribed. */
import { randomBytes } from "../../mod/base/bytes.ts";
import type { ClientConnection } from "../../mod/client/connection.ts";
import { connectServer, type ServerLink } from "../../mod/client/identity.ts";
import { login, makeDevice, register, resume } from "../../mod/client/session.ts";
import { idBytes, type MeasuredServer, type SeededDevice } from "./measured_server.ts";

/** How many connections are made at once: more only wait for each other. */
const CONNECTING_AT_ONCE = 16;
const CREDIT_BYTES = 4 << 20;
/** A change of the database key makes messages wait, and how long is to be seen. */
const SEND_TIMEOUT_MS = 600_000;
const PASSWORD = "correct horse battery staple";

/** A connected device. */
export class LoadDevice implements AsyncDisposable {
  readonly #leaving = new AbortController();

  private constructor(readonly connection: ClientConnection, readonly id: Uint8Array) {}

  /** Connects and resumes. */
  static async connect(server: MeasuredServer, seeded: SeededDevice): Promise<LoadDevice> {
    const link = await connectTo(server, "");
    await resume(link, seeded);
    return new LoadDevice(link.connection, idBytes(seeded.device.deviceId));
  }

  /** Sends one message to `recipients`. */
  async send(recipients: readonly Uint8Array[], payload: Uint8Array): Promise<void> {
    const parts = [{ payload, recipients: [...recipients] }];
    const { statuses } = await this.connection.call(
      "enqueue",
      { messageId: randomBytes(16), parts },
      { timeoutMs: SEND_TIMEOUT_MS },
    );
    const refused = statuses.filter((status) => status !== 1).length;
    if (refused > 0) throw new Error(`${refused} of ${statuses.length} recipients were refused`);
  }

  /** Parks a FetchWait; what it answers is of no interest. */
  park(): void {
    this.connection.call("fetchWait", { fetch: { after: 0n }, timeoutMs: 600_000 }, { timeoutMs: 600_000 })
      .catch(() => {}); // the connection ends before it does
  }

  /** Subscribes, acknowledges what comes, and calls back for each message. Resolves when it is subscribed. */
  async subscribe(onMessage: () => void): Promise<void> {
    const { signal } = this.#leaving;
    const batches = this.connection.subscribe({ after: 0n, creditBytes: CREDIT_BYTES }, { signal });
    await batches.next(); // the first answer holds no entries
    this.#acknowledge(batches, onMessage).catch(() => {}); // ends with the connection
  }

  async #acknowledge(
    batches: ReturnType<ClientConnection["subscribe"]>,
    onMessage: () => void,
  ): Promise<void> {
    for await (const { entries } of batches) {
      const last = entries.at(-1);
      if (!last) continue;
      await this.connection.call("ack", { through: last.seq });
      for (const _ of entries) onMessage();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#leaving.abort();
    await this.connection.close();
  }
}

/** Connects all of `seeded`, a few at once. */
export async function connectAll(
  server: MeasuredServer,
  seeded: readonly SeededDevice[],
): Promise<LoadDevice[]> {
  const rest = [...seeded];
  const devices: LoadDevice[] = [];
  const work = async () => {
    for (let next = rest.pop(); next; next = rest.pop()) devices.push(await LoadDevice.connect(server, next));
  };
  await Promise.all(Array.from({ length: CONNECTING_AT_ONCE }, work));
  return devices;
}

/** Registers an account; returns what logs it in once more with its password, each time on a new connection. */
export async function passwordLogins(server: MeasuredServer): Promise<() => Promise<void>> {
  const link = await connectTo(server, server.token);
  await register(link, { userName: "scaling", password: PASSWORD });
  await link.connection.close();
  const device = await makeDevice("scaling");
  return async () => {
    const link = await connectTo(server, "");
    await login(link, { userName: "scaling", password: PASSWORD, device });
    await link.connection.close();
  };
}

async function connectTo(server: MeasuredServer, accessToken: string): Promise<ServerLink> {
  return await connectServer({
    server: { hostname: "127.0.0.1", port: server.port },
    choice: { fingerprint: server.fingerprint },
    accessToken,
  });
}
