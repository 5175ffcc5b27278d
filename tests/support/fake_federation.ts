/**
 * Servers of several domains in memory, as far as the client library can tell: they speak frames over streams that are
 * arrays, and relay to one another when the test says so. For what cannot be arranged with real ones: every order in
 * which things come, servers that lie, commits whose hub is away.
 */
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { type Bytes, copy, fromHex, hex, randomBytes } from "../../mod/base/bytes.ts";
import { ERRORS, QpqError } from "../../mod/base/errors.ts";
import { type AccountId, type DeviceId, type EntryId, randomId, type SessionId } from "../../mod/base/ids.ts";
import { generateKeyPair, type KeyPair, signDevice } from "../../mod/client/account_keys.ts";
import { Client } from "../../mod/client/mod.ts";
import { makeDevice } from "../../mod/client/session.ts";
import { ClientState } from "../../mod/client/state.ts";
import {
  CODE_OK,
  encodeFrame,
  type Frame,
  FRAME_BODY_BYTES_MAX,
  FrameDecoder,
} from "../../mod/protocol/frame.ts";
import { type MethodName, METHODS } from "../../mod/protocol/methods.ts";
import {
  type CommitGuard,
  type EnqueueRequest,
  EntryKind,
  type EntrySchema,
  ErrorResponseSchema,
  NoticeSchema,
  RecipientStatus,
} from "../../mod/protocol/qpq_pb.ts";
import type { CloseReason, Connection, Stream } from "../../mod/transport/transport.ts";

type EntryInit = MessageInitShape<typeof EntrySchema>;
type Handler = (request: never, caller: FakeDevice) => unknown;

interface FakeDevice {
  readonly accountId: AccountId;
  readonly deviceId: DeviceId;
  readonly deviceKey: Bytes;
  readonly accountSignature: Bytes;
  readonly sessionId: SessionId;
  readonly queue: EntryInit[];
  readonly packages: { suite: number; bytes: Bytes; lastResort: boolean }[];
  nextSeq: number;
}

interface FakeAccount {
  readonly accountId: AccountId;
  readonly userName: string;
  readonly key: KeyPair;
  readonly devices: FakeDevice[];
}

/** All servers, and what is between them. */
export class FakeFederation {
  readonly servers = new Map<string, FakeServer>();
  readonly #held = new Map<string, (() => void)[]>();

  /** A server; an empty domain is one that does not federate. */
  server(domain: string): FakeServer {
    const server = new FakeServer(this, domain);
    this.servers.set(domain, server);
    return server;
  }

  /** Nothing that `from` has for `to` arrives until it is released. */
  hold(from: string, to: string): void {
    const pair = `${from} ${to}`;
    if (!this.#held.has(pair)) this.#held.set(pair, []);
  }

  /** Delivers what was held, in its order or in the one that `sorted` makes of it. */
  release(from: string, to: string, sorted = (held: (() => void)[]) => held): void {
    const held = this.#held.get(`${from} ${to}`) ?? [];
    this.#held.delete(`${from} ${to}`);
    for (const deliver of sorted(held)) deliver();
  }

  relay(from: string, to: string, deliver: () => void): void {
    const held = this.#held.get(`${from} ${to}`);
    if (held) held.push(deliver);
    else deliver();
  }
}

/** See the head of this file. */
export class FakeServer {
  /** Other servers cannot reach it. */
  isDown = false;
  readonly accounts: FakeAccount[] = [];
  readonly #incarnation = randomBytes(16);
  readonly #guards = new Map<string, number>();
  readonly #accepted = new Map<string, unknown>();
  /** Called when a commit came too late. */
  onWrongEpoch = (): void => {};

  constructor(readonly world: FakeFederation, public domain: string) {}

  /** An account with one device, logged in; its state is in `folder`. */
  async client(userName: string, folder: string): Promise<Client> {
    const key = await generateKeyPair();
    const accountId = randomId<AccountId>();
    const account: FakeAccount = { accountId, userName, key, devices: [] };
    this.accounts.push(account);
    const device = await makeDevice("phone");
    const { deviceId } = device;
    const deviceKey = device.key.publicKey;
    const accountSignature = await signDevice(key.privateKey, { accountId, deviceId, deviceKey });
    const sessionId = randomId<SessionId>();
    account.devices.push({
      accountId,
      deviceId,
      deviceKey,
      accountSignature,
      sessionId,
      queue: [],
      packages: [],
      nextSeq: 1,
    });
    const state = await ClientState.open({ folder });
    await state.transaction((tx) => {
      tx.set("account", { accountId, userName, key });
      tx.set("device", device);
      tx.set("session", { sessionId });
    });
    await state.close();
    return await this.reopen(folder);
  }

  /** A client on a state folder that {@link client} made. */
  async reopen(folder: string): Promise<Client> {
    const client = await Client.open({
      server: { hostname: "fake.test", port: 1 },
      state: folder,
      identity: { fingerprint: "11".repeat(32) },
      connect: () => Promise.resolve(this.#connection()),
    });
    await client.upkeep();
    return client;
  }

  /** Puts an entry into a device's queue. */
  deliver(deviceId: string, entry: EntryInit): boolean {
    const device = this.#devices().find((one) => one.deviceId === deviceId);
    device?.queue.push({ acceptedAtMs: BigInt(Date.now()), ...entry, seq: BigInt(device.nextSeq++) });
    return device !== undefined;
  }

  /** Puts a notice into a device's queue. */
  notify(deviceId: string, notice: MessageInitShape<typeof NoticeSchema>["notice"]): void {
    const payload = toBinary(NoticeSchema, create(NoticeSchema, { notice: notice! }));
    this.deliver(deviceId, { kind: EntryKind.NOTICE, entryId: fromHex(randomId<EntryId>()), payload });
  }

  #devices(): FakeDevice[] {
    return this.accounts.flatMap((account) => account.devices);
  }

  #peer(domain: string): FakeServer {
    if (domain === "" || domain === this.domain) return this;
    const peer = this.world.servers.get(domain);
    if (!peer) throw new QpqError("unknownDomain", `Cannot reach ${domain}`);
    if (peer.isDown) throw new QpqError("peerUnavailable", `Cannot reach ${domain}`, { retryAfterMs: 1 });
    return peer;
  }

  // --- requests ---------------------------------------------------------------------------------------------

  readonly #handlers: Partial<Record<MethodName, Handler>> = {
    hello: () => ({
      domain: this.domain,
      serverNonce: new Uint8Array(32),
      storeIncarnation: this.#incarnation,
      admitted: true,
      limits: { requestsInFlightMax: 16, keyPackagesMax: 100 },
    }),
    listDevices: (_request: object, caller) => ({
      devices: this.accounts.find((one) => one.accountId === caller.accountId)!.devices.map(deviceMessage),
    }),
    countKeyPackages: (_request: object, { packages }) => ({
      counts: [1, 83].map((suite) => ({
        suite,
        count: packages.filter((one) => one.suite === suite && !one.lastResort).length,
        lastResortNotAfterMs: packages.some((one) => one.suite === suite && one.lastResort) ? 9e15 : 0,
      })).map((one) => ({ ...one, lastResortNotAfterMs: BigInt(one.lastResortNotAfterMs) })),
    }),
    uploadKeyPackages: (
      request: { keyPackages: { keyPackage: Bytes; lastResort: boolean }[] },
      { packages },
    ) => {
      for (const { keyPackage, lastResort } of request.keyPackages) {
        const suite = keyPackage[3]!; // version (2) ‖ suite (2)
        const former = packages.findIndex((one) => one.lastResort && lastResort && one.suite === suite);
        if (former >= 0) packages.splice(former, 1);
        packages.push({ suite, bytes: copy(keyPackage), lastResort });
      }
      return {};
    },
    getAccount: (request: { accountId: Bytes; domain: string }) => {
      const accountId = hex(request.accountId);
      const account = this.#peer(request.domain).accounts.find((one) => one.accountId === accountId);
      if (!account) throw new QpqError("notFound", "There is no such account");
      return accountMessage(account);
    },
    fetchKeyPackages: (
      request: { userName: string; accountId: Bytes; domain: string; suite: number; deviceIds: Bytes[] },
    ) => {
      const account = this.#peer(request.domain).accounts.find((one) =>
        one.userName === request.userName || one.accountId === hex(request.accountId)
      );
      const wanted = request.deviceIds.map(hex);
      const keyPackages = (account?.devices ?? [])
        .filter(({ deviceId }) => wanted.length === 0 || wanted.includes(deviceId))
        .flatMap((device) => takePackage(device, request.suite));
      if (!account || keyPackages.length === 0) throw new QpqError("noKeyPackages", "There are none");
      return { ...accountMessage(account), keyPackages };
    },
    enqueue: (request: EnqueueRequest, caller) => this.#enqueue(request, caller),
    fetch: ({ after }: { after: bigint }, caller) => ({
      entries: caller.queue.filter((entry) => entry.seq! > after),
      cursor: { incarnation: this.#incarnation, nextSeq: BigInt(caller.nextSeq) },
      empty: true,
    }),
    ack: () => ({ cursor: { incarnation: this.#incarnation } }),
  };

  #enqueue(request: EnqueueRequest, caller: FakeDevice): unknown {
    const id = hex(request.messageId);
    if (this.#accepted.has(id)) return this.#accepted.get(id);
    const { guard } = request;
    if (guard) this.#peer(guard.hub).#judge(guard, id);
    const entryOf = (payload: Bytes, senderDomain: string): EntryInit => ({
      kind: EntryKind.MESSAGE,
      entryId: fromHex(randomId<EntryId>()),
      senderAccountId: fromHex(caller.accountId),
      senderDeviceId: fromHex(caller.deviceId),
      payload,
      senderDomain,
    });
    const statuses: RecipientStatus[] = [];
    for (const { payload, recipients, remote } of request.parts) {
      for (const recipient of recipients) {
        const isKnown = this.deliver(hex(recipient), entryOf(payload as Bytes, ""));
        statuses.push(isKnown ? RecipientStatus.OK : RecipientStatus.UNKNOWN_DEVICE);
      }
      for (const { domain, recipients } of remote) {
        const peer = this.world.servers.get(domain);
        for (const recipient of recipients) {
          statuses.push(peer ? RecipientStatus.RELAYING : RecipientStatus.UNKNOWN_DOMAIN);
          const deliver = () => void peer?.deliver(hex(recipient), entryOf(payload as Bytes, this.domain));
          // What the hub accepts it delivers to its own devices at once.
          if (guard && domain === guard.hub) deliver();
          else this.world.relay(this.domain, domain, deliver);
        }
      }
    }
    const response = { statuses, acceptedAtMs: BigInt(Date.now()) };
    this.#accepted.set(id, response);
    return response;
  }

  #judge({ groupId, epoch }: CommitGuard, messageId: string): void {
    if (this.#accepted.has(`hub ${messageId}`)) return;
    const group = hex(groupId);
    const current = this.#guards.get(group) ?? Number(epoch);
    if (current !== Number(epoch)) {
      this.onWrongEpoch();
      throw new QpqError("wrongEpoch", "Another commit was first", { currentEpoch: current });
    }
    this.#guards.set(group, current + 1);
    this.#accepted.set(`hub ${messageId}`, true);
  }

  // --- frames -----------------------------------------------------------------------------------------------

  #connection(): Connection {
    const ended = Promise.withResolvers<CloseReason>();
    let caller: FakeDevice | undefined;
    const answer = (frame: Frame): Bytes => {
      const name = (Object.keys(METHODS) as MethodName[]).find((one) => METHODS[one].number === frame.code)!;
      try {
        const request = fromBinary(METHODS[name].request, frame.body);
        if (name === "resume") {
          const { sessionId } = request as unknown as { sessionId: Bytes };
          caller = this.#devices().find((one) => one.sessionId === hex(sessionId))!;
          const ids = { accountId: fromHex(caller.accountId), deviceId: fromHex(caller.deviceId) };
          return reply(frame, name, { ...ids, deviceSigned: true });
        }
        const handler = this.#handlers[name];
        if (!handler) throw new QpqError("unknownMethod", name);
        return reply(frame, name, handler(request as never, caller!) as object);
      } catch (error) {
        if (!(error instanceof QpqError)) throw error;
        const { retryAfterMs = 0, currentEpoch } = error.details;
        const body = create(ErrorResponseSchema, {
          text: error.message,
          retryAfterMs,
          ...(currentEpoch === undefined ? {} : { currentEpoch: BigInt(currentEpoch) }),
        });
        return encodeFrame(frame.requestId, ERRORS[error.code].number, toBinary(ErrorResponseSchema, body));
      }
    };
    const close = () => ended.resolve({ code: 0, reason: "", by: "local" });
    return {
      remoteAddress: { hostname: "fake.test", port: 1 },
      closed: ended.promise,
      openStream: () => Promise.resolve(answeringStream(answer, ended.promise)),
      async *incomingStreams() {},
      close,
      [Symbol.asyncDispose]: () => Promise.resolve(close()),
    };
  }
}

function reply(frame: Frame, name: MethodName, message: object): Bytes {
  const schema = METHODS[name].response;
  return encodeFrame(frame.requestId, CODE_OK, toBinary(schema, create(schema, message as never)));
}

/** A stream on which each request is answered as soon as it is written. */
function answeringStream(answer: (frame: Frame) => Bytes, ended: Promise<unknown>): Stream {
  const decoder = new FrameDecoder(() => FRAME_BODY_BYTES_MAX);
  const answers: (Bytes | null)[] = [];
  let wake = () => {};
  const push = (bytes: Bytes | null) => {
    answers.push(bytes);
    wake();
  };
  ended.then(() => push(null));
  return {
    async read() {
      while (answers.length === 0) await new Promise<void>((resolve) => wake = resolve);
      return answers.shift()!;
    },
    write(bytes) {
      for (const decoded of decoder.push(copy(bytes))) {
        if (decoded.kind === "frame") push(answer(decoded.frame));
      }
      return Promise.resolve();
    },
    closeWrite: () => Promise.resolve(),
    stopReading: () => {},
    abort: () => push(null),
  };
}

const deviceMessage = ({ deviceId, deviceKey, accountSignature }: FakeDevice) => ({
  deviceId: fromHex(deviceId),
  deviceKey,
  accountSignature,
});

const accountMessage = ({ accountId, userName, key, devices }: FakeAccount) => ({
  accountId: fromHex(accountId),
  userName,
  accountKey: key.publicKey,
  devices: devices.map(deviceMessage),
});

function takePackage({ deviceId, packages }: FakeDevice, suite: number) {
  const ofSuite = packages.filter((one) => one.suite === suite);
  const found = ofSuite.find((one) => !one.lastResort) ?? ofSuite[0];
  if (!found) return [];
  if (!found.lastResort) packages.splice(packages.indexOf(found), 1);
  return [{ deviceId: fromHex(deviceId), keyPackage: found.bytes, lastResort: found.lastResort }];
}
