/** A logged-in device on its own connection to a test server, below the level of groups and state. */
import { parseFingerprint } from "../../mod/transport/fingerprint.ts";
import { fromHex, randomBytes } from "../../mod/base/bytes.ts";
import { type DeviceId, randomId } from "../../mod/base/ids.ts";
import { CLIENT_KEY_STRETCHING } from "../../mod/base/opaque_suite.ts";
import type { ClientConnection } from "../../mod/client/connection.ts";
import { connectServer, type ServerLink } from "../../mod/client/identity.ts";
import type { KeyStretching } from "../../mod/client/opaque_ristretto255.ts";
import {
  login,
  makeDevice,
  type OwnAccount,
  type OwnDevice,
  register,
  resume,
} from "../../mod/client/session.ts";
import type { SessionId } from "../../mod/base/ids.ts";
import type { EnqueueResponse } from "../../mod/protocol/qpq_pb.ts";
import { connect } from "../../mod/transport/deno_quic.ts";
import type { Connection } from "../../mod/transport/transport.ts";
import { RawStream } from "./raw_stream.ts";
import type { TestServer } from "./test_server.ts";

/** Where a server is and what admits to it: a TestServer, or one in another process. */
export type Reachable = Pick<TestServer, "hostname" | "port" | "fingerprint" | "accessToken">;

/** Every test account's password. */
export const PASSWORD = "correct horse battery staple";

/**
 * How test accounts stretch it unless told otherwise: the least that Argon2id takes, as the 0.15 s of the default for
 * each login prove nothing about the server. Whatever logs in to such an account has to name it; where the program, or
 * a client that is opened without it, does, or makes the record anew, the account is to be {@link STRETCHED}.
 */
export const LEAST_STRETCHING: KeyStretching = {
  "argon2id-custom": { iterations: 1, memory: 8, parallelism: 1 },
};

/** How an account or a device is made. */
export interface NewOptions {
  readonly keyStretching?: KeyStretching;
}

/** As the client library does it. */
export const STRETCHED: NewOptions = { keyStretching: CLIENT_KEY_STRETCHING };

/** A link, and the transport under it. */
export type TestLink = ServerLink & { readonly transport: Connection };

/** A connection that said Hello; with the access token unless told otherwise. The signal ends it at any time. */
export async function connectTo(
  server: Reachable,
  options: { accessToken?: string; signal?: AbortSignal } = {},
): Promise<TestLink> {
  let transport: Connection;
  const { signal } = options;
  const link = await connectServer({
    server: { hostname: server.hostname, port: server.port },
    choice: { fingerprint: parseFingerprint(server.fingerprint)! },
    accessToken: options.accessToken ?? server.accessToken,
    connect: async (to) => {
      transport = await connect({ ...to, ...(signal ? { signal } : {}) });
      signal?.addEventListener("abort", () => transport.close(0, "given up"));
      return transport;
    },
  });
  return { ...link, transport: transport! };
}

/** A logged-in device. */
export class TestClient implements AsyncDisposable {
  constructor(
    readonly link: TestLink,
    readonly own: { account: OwnAccount; device: OwnDevice; sessionId: SessionId },
  ) {}

  get connection(): ClientConnection {
    return this.link.connection;
  }

  get deviceId(): Uint8Array {
    return fromHex(this.own.device.deviceId);
  }

  get accountId(): Uint8Array {
    return fromHex(this.own.account.accountId);
  }

  /** Another stream of this logged-in connection, to write frames by hand. */
  async rawStream(): Promise<RawStream> {
    return new RawStream(this.link.transport, await this.link.transport.openStream());
  }

  /** Enqueues one payload. */
  enqueue(
    to: readonly Uint8Array[],
    message: { payload: Uint8Array; messageId?: Uint8Array; ttlS?: number },
  ): Promise<EnqueueResponse> {
    return this.connection.call("enqueue", {
      messageId: message.messageId ?? randomBytes(16),
      parts: [{ payload: message.payload, recipients: [...to] }],
      ttlS: message.ttlS ?? 0,
    });
  }

  /** The same device on a new connection, by Resume. */
  async again(server: Reachable): Promise<TestClient> {
    const link = await connectTo(server, { accessToken: "" });
    await resume(link, this.own);
    return new TestClient(link, this.own);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.link.connection[Symbol.asyncDispose]();
  }
}

/** Registers `userName` and logs its first device in. */
export async function newAccount(
  server: Reachable,
  userName: string,
  { keyStretching = LEAST_STRETCHING }: NewOptions = {},
): Promise<TestClient> {
  const link = await connectTo(server);
  await register(link, { userName, password: PASSWORD, keyStretching });
  return await loginOn(link, { userName, keyStretching });
}

/** Logs another device of `userName` in. */
export async function newDevice(
  server: Reachable,
  userName: string,
  { keyStretching = LEAST_STRETCHING }: NewOptions = {},
): Promise<TestClient> {
  return await loginOn(await connectTo(server), { userName, keyStretching });
}

async function loginOn(
  link: TestLink,
  user: { userName: string; keyStretching: KeyStretching },
): Promise<TestClient> {
  const device = await makeDevice(`test ${randomId<DeviceId>().slice(0, 4)}`);
  const { account, sessionId } = await login(link, { ...user, password: PASSWORD, device });
  return new TestClient(link, { account, device, sessionId });
}
