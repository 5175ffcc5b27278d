/**
 * One device of an account: the parts of a client, wired together, behind the methods that an application
 * calls.
 */
import { type Clock, systemClock } from "../base/clock.ts";
import { QpqError } from "../base/errors.ts";
import type { AccountId, DeviceId } from "../base/ids.ts";
import type { MlsSuite } from "../base/mls_suites.ts";
import { fingerprintText, parseFingerprint } from "../transport/fingerprint.ts";
import type { Connection, ConnectOptions } from "../transport/transport.ts";
import { type IdentityChoice, parseServerAddress, type ServerAddress } from "./identity.ts";
import { Inbox } from "./inbox.ts";
import { Accounts, type Credentials, type Whoami } from "./messenger_accounts.ts";
import { Chores } from "./messenger_chores.ts";
import { Committer } from "./messenger_commits.ts";
import { Contacts, type Verification } from "./messenger_contacts.ts";
import type { ClientEvent } from "./messenger_events.ts";
import { GroupStore } from "./messenger_group_store.ts";
import { type GroupMember, Groups, type GroupSummary, type MembersChanged } from "./messenger_groups.ts";
import { KeyPackageUpkeep } from "./messenger_key_packages.ts";
import { type ReceiveOptions, Receiver } from "./messenger_receiver.ts";
import { type FileSource, type KnownFile, type Progress, Sender, type Sent } from "./messenger_send.ts";
import { Uplink } from "./messenger_uplink.ts";
import type { KeyStretching } from "./opaque_ristretto255.ts";
import { Outbox } from "./outbox.ts";
import type { DeviceInfo } from "./session.ts";
import { ClientState } from "./state.ts";
import type { Passphrase } from "./state_key.ts";

/** How a client is opened. */
export interface ClientOptions {
  /** `HOST:PORT`. Default: the server that the state was used with last. */
  readonly server?: string | ServerAddress;
  /** Folder of the state; made when it is not there. */
  readonly state: string;
  /**
   * Who the server must be: PEM of its CA, or SHA-256 of its certificate (hex). Needed once; then it is
   * remembered, and rotations that the server announces are followed. Without it, public certificate
   * authorities vouch.
   */
  readonly identity?: { readonly ca: string } | { readonly fingerprint: string };
  /** Admits to registration and to {@link Client.ping} before a login. */
  readonly accessToken?: string;
  /** Protects a new state's key, or opens a protected one; asked only when it is needed. */
  readonly passphrase?: Passphrase;
  /** For tests. */
  readonly clock?: Clock;
  /** For tests, whose passwords are worth no work: the same one for every login of an account. */
  readonly keyStretching?: KeyStretching;
  /** Another transport engine. */
  readonly connect?: (options: ConnectOptions) => Promise<Connection>;
}

/** What the server answered to a ping. */
export interface Pong {
  readonly serverVersion: string;
  readonly roundTripMs: number;
  /** Server's clock, Unix ms. */
  readonly serverTime: number;
  /** Fingerprint (hex) of the certificate that is pinned; null when the public roots vouch. */
  readonly fingerprint: string | null;
}

/**
 * One device of an account.
 *
 * ```ts
 * await using client = await Client.open({ server: "localhost:7000", state: "./state", identity: { ca: caPem } });
 * await client.login({ userName: "alice", password });
 * await client.createGroup("friends", { users: ["bob", "carol"] });
 * const sent = await client.send("friends", "Dinner at eight?");
 * for (const failure of sent.failures) console.warn(`${failure.user} did not get it: ${failure.reason}`);
 * for await (const event of client.receive()) console.log(event); // what waits, then it ends
 * ```
 */
export class Client implements AsyncDisposable {
  readonly #state: ClientState;
  readonly #clock: Clock;
  readonly #uplink: Uplink;
  readonly #contacts: Contacts;
  readonly #accounts: Accounts;
  readonly #groups: Groups;
  readonly #sender: Sender;
  readonly #receiver: Receiver;
  readonly #inbox: Inbox;
  readonly #chores: Chores;

  private constructor(state: ClientState, options: { server: ServerAddress } & ClientOptions) {
    const clock = options.clock ?? systemClock;
    const { server, accessToken, connect, keyStretching } = options;
    const choice = identityChoice(options.identity);
    const uplink = new Uplink({ state, clock, server, choice, accessToken, connect });
    const contacts = new Contacts({ state, uplink, clock });
    const store = new GroupStore({ state, contacts, clock });
    const onAdopted = () => this.#inbox.settleEarly();
    const outbox = new Outbox({ state, uplink, groups: store, clock, onAdopted });
    const keyPackages = new KeyPackageUpkeep({ state, uplink, groups: store, clock });
    const onKeyPackagesLow = () => keyPackages.expireCheck();
    const inbox = new Inbox({ state, contacts, groups: store, clock, onKeyPackagesLow });
    const receiver = new Receiver({ state, uplink, inbox, chores: () => this.#chores });
    const catchUp = () => receiver.catchUp();
    const committer = new Committer({ state, uplink, contacts, groups: store, outbox, clock, catchUp });
    const groups = new Groups({ state, contacts, store, committer, outbox, clock });
    this.#state = state;
    this.#clock = clock;
    this.#uplink = uplink;
    this.#contacts = contacts;
    this.#inbox = inbox;
    this.#receiver = receiver;
    this.#groups = groups;
    this.#accounts = new Accounts({ state, uplink, keyPackages, clock, keyStretching });
    this.#sender = new Sender({ state, uplink, contacts, store, groups, committer, outbox, receiver, clock });
    this.#chores = new Chores({ state, groups: store, committer, outbox, keyPackages, inbox, clock });
  }

  /** Opens the state folder. Connects when something needs the server. Throws StateError. */
  static async open(options: ClientOptions): Promise<Client> {
    const { state: folder, passphrase } = options;
    const state = await ClientState.open({ folder, ...(passphrase === undefined ? {} : { passphrase }) });
    try {
      return new Client(state, { ...options, server: serverOf(state, options) });
    } catch (error) {
      await state.close();
      throw error;
    }
  }

  // --- the server
  // -------------------------------------------------------------------------------------------

  /** Where the server is. */
  get server(): ServerAddress {
    return this.#uplink.server;
  }

  /**
   * Connects, verifies the server, and exchanges a message: the whole way works. Needs the token or a login.
   */
  async ping(): Promise<Pong> {
    const link = await this.#uplink.link();
    const startedAt = this.#clock.monotonic();
    const { serverTimeMs } = await link.connection.call("ping", {});
    return {
      serverVersion: link.hello.serverVersion,
      roundTripMs: this.#clock.monotonic() - startedAt,
      serverTime: Number(serverTimeMs),
      fingerprint: link.pinnedLeafSha256 && fingerprintText(link.pinnedLeafSha256),
    };
  }

  // --- the account
  // ------------------------------------------------------------------------------------------

  /** Who this state belongs to; null before the first login. Asks nobody. */
  whoami(): Whoami | null {
    return this.#accounts.whoami();
  }

  /** Registers an account, with the access token or an invitation, and logs this device in. */
  register(account: Credentials & { readonly invitation?: string }): Promise<Whoami> {
    return this.#accounts.register(account);
  }

  /** Logs this device in: as a new device of the account, or again as the one it was. */
  login(credentials: Credentials): Promise<Whoami> {
    return this.#accounts.login(credentials);
  }

  /** Ends the session; everything stays for the next login. */
  logout(): Promise<void> {
    return this.#accounts.logout();
  }

  /** Changes the password and ends the sessions of the account's other devices. */
  changePassword(change: { readonly password: string; readonly newPassword: string }): Promise<void> {
    return this.#accounts.changePassword(change);
  }

  /** Deletes the account, for ever, and what this state holds of it. */
  deleteAccount(proof: { readonly password: string }): Promise<void> {
    return this.#accounts.deleteAccount(proof);
  }

  /** The account's devices, oldest first. */
  devices(): Promise<DeviceInfo[]> {
    return this.#accounts.devices();
  }

  /**
   * Revokes one of the account's devices: it gets nothing more at once, and is removed from the groups that
   * this client knows. What it has received before it can still read.
   */
  async revokeDevice(deviceId: DeviceId, proof: { readonly password: string }): Promise<void> {
    await this.#accounts.revokeDevice(deviceId, proof);
    await this.#chores.run();
  }

  /** An invitation code: whoever has it may register one account without the access token. */
  createInvitation(
    options: { readonly ttlMs?: number } = {},
  ): Promise<{ invitation: string; expiresAt: number }> {
    return this.#accounts.createInvitation(options);
  }

  /** From now on the server takes nothing from this user for this account. */
  async block(userName: string): Promise<void> {
    await this.#accounts.block(await this.#groups.accountOf(userName));
  }

  /** Undoes {@link block}. */
  async unblock(userName: string): Promise<void> {
    await this.#accounts.unblock(await this.#groups.accountOf(userName));
  }

  /** Who is blocked. */
  blocks(): Promise<{ accountId: AccountId; userName: string }[]> {
    return this.#accounts.blocks();
  }

  /** Wraps the state's key under another passphrase, or none. */
  setPassphrase(passphrase: Passphrase | undefined): Promise<void> {
    return this.#state.setPassphrase(passphrase);
  }

  // --- other people's keys
  // ----------------------------------------------------------------------------------

  /**
   * The safety number with a user, of the key that the server names now. Both sides see the same number
   * unless the server lies to one of them: compare it over another channel.
   */
  async verify(userName: string): Promise<Verification> {
    const accountId = await this.#groups.accountOf(userName);
    await this.#contacts.refresh({ accountId, domain: this.#contacts.domainOf(accountId) });
    return this.#contacts.verification(accountId);
  }

  /** Notes that the safety number was compared and is right. */
  async markVerified(userName: string): Promise<void> {
    await this.#contacts.markVerified(await this.#groups.accountOf(userName));
  }

  /** Accepts a user's changed account key. False when it has not changed. */
  async trust(userName: string): Promise<boolean> {
    const contact = this.#contacts.find(userName);
    if (!contact) throw new QpqError("notFound", `${userName} is not known here`);
    const changed = await this.#contacts.trust(contact.accountId);
    await this.#inbox.releaseHeld();
    return changed;
  }

  // --- groups
  // -----------------------------------------------------------------------------------------------

  /** All groups that this device knows, conversations of two among them. */
  groups(): GroupSummary[] {
    return this.#groups.list();
  }

  /** Makes a group. `suite`: see base/mls_suites.ts; X-Wing (post-quantum) is experimental. */
  async createGroup(
    name: string,
    options: { readonly users?: readonly string[]; readonly suite?: MlsSuite } = {},
  ): Promise<MembersChanged> {
    await this.#hear();
    return await this.#groups.create(name, options);
  }

  /** Members of a group, by its name or id. */
  members(group: string): GroupMember[] {
    return this.#groups.members(this.#groups.find(group));
  }

  /** Adds a user with all devices. They see what is sent from now on. */
  async addMember(group: string, userName: string): Promise<MembersChanged> {
    await this.#hear();
    return await this.#groups.add(this.#groups.find(group), userName);
  }

  /**
   * Takes a user out and in again: for one whose client says that it missed a part of the group's history.
   */
  async readdMember(group: string, userName: string): Promise<MembersChanged> {
    await this.#hear();
    return await this.#groups.readd(this.#groups.find(group), userName);
  }

  /** Removes a user with all devices. They cannot read what is sent from now on. */
  async removeMember(group: string, userName: string): Promise<MembersChanged> {
    await this.#hear();
    return await this.#groups.remove(this.#groups.find(group), userName);
  }

  /** Leaves a group: the others are asked to commit it. */
  async leaveGroup(group: string): Promise<void> {
    await this.#hear();
    await this.#groups.leave(this.#groups.find(group));
  }

  /** Forgets a group that this device is not in any more. */
  forgetGroup(group: string): Promise<void> {
    return this.#groups.forget(this.#groups.find(group));
  }

  /** A new group with the same members, for one that a member has stalled; it is called "NAME (2)". */
  async recreateGroup(group: string): Promise<MembersChanged> {
    await this.#hear();
    return await this.#groups.recreate(this.#groups.find(group));
  }

  // --- messages
  // ---------------------------------------------------------------------------------------------

  /**
   * Sends a text to a group (name or id) or a user (`@name` when a group has the same name). Resolves when
   * the server has it on disk. Before it is encrypted this client hears what has changed: when the server
   * cannot be reached for that, nothing is kept. When the connection fails after that, the message stays in
   * the outbox ({@link unsent}) and goes out with the next request.
   */
  send(target: string, text: string): Promise<Sent> {
    return this.#sender.send(target, text);
  }

  /**
   * How many requests wait to be sent: messages and changes of groups. They go out with the next one, each
   * once.
   */
  get unsent(): number {
    return this.#state.all("outbox").length;
  }

  /** Sends a file: encrypted here, stored on the server until it expires. */
  sendFile(target: string, source: FileSource): Promise<Sent & { readonly fileId: string }> {
    return this.#sender.sendFile(target, source);
  }

  /** Files that were sent or received here, oldest first. */
  files(): KnownFile[] {
    return this.#sender.files();
  }

  /**
   * Fetches a file into `path`, or into the folder `path` under its own name; returns where it is. Replaces
   * nothing.
   */
  getFile(
    fileId: string,
    path: string,
    options: { readonly onProgress?: Progress } = {},
  ): Promise<string> {
    return this.#sender.getFile(fileId, path, options);
  }

  /**
   * What happened, in order: messages, files, changes of groups, warnings. Without `follow` it ends when
   * nothing waits. An event is forgotten when the next one is asked for: after a crash in between it comes
   * again, with the same id.
   */
  receive(options: ReceiveOptions = {}): AsyncGenerator<ClientEvent, void, void> {
    return this.#receiver.receive(options);
  }

  /**
   * Sends what waits, adds new devices to groups, keeps KeyPackages: what {@link receive} does beside
   * receiving.
   */
  async upkeep(): Promise<void> {
    await this.#hear();
    await this.#chores.run();
  }

  /** Ends the connection and a {@link receive} that follows, and lets go of the state folder. */
  async close(): Promise<void> {
    await this.#uplink.close();
    await this.#state.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Before a group is changed: hear what others have changed. */
  async #hear(): Promise<void> {
    if (!this.#receiver.isFollowing) await this.#receiver.catchUp();
  }
}

function identityChoice(identity: ClientOptions["identity"]): IdentityChoice | undefined {
  if (!identity || "ca" in identity) return identity;
  const fingerprint = parseFingerprint(identity.fingerprint);
  if (!fingerprint) throw new TypeError("A fingerprint is a SHA-256: 64 hexadecimal digits");
  return { fingerprint };
}

function serverOf(state: ClientState, { server }: ClientOptions): ServerAddress {
  if (typeof server === "string") return parseServerAddress(server);
  const known = server ?? state.one("server");
  if (!known) throw new TypeError("This state knows no server yet: name one (HOST:PORT)");
  return { hostname: known.hostname, port: known.port };
}
