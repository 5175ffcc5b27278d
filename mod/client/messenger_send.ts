/**
 * Sending: a message is encrypted and put into the outbox in one transaction, then delivered. Files are
 * encrypted beside the state, stored as a blob, and sent as a message that says where they are and how to
 * open them.
 */
import { basename, join } from "node:path";
import { hex, randomBytes } from "../base/bytes.ts";
import type { Clock } from "../base/clock.ts";
import { QpqError } from "../base/errors.ts";
import type { AccountId, GroupId, MessageId } from "../base/ids.ts";
import { encodeContent, type FileReference, type MessageContent, safeFileName } from "./content.ts";
import { decryptFileTo, encryptFileTo, newFileCipher, type SealedFile } from "./file_crypto.ts";
import { addChore, addFile, fileIdOf } from "./inbox_rows.ts";
import type { Committer } from "./messenger_commits.ts";
import {
  AccountKeyChangedError,
  contactAddress,
  type Contacts,
  nameIn,
  ownAccount,
  ownDomain,
} from "./messenger_contacts.ts";
import type { GroupStore } from "./messenger_group_store.ts";
import type { Groups } from "./messenger_groups.ts";
import type { Receiver } from "./messenger_receiver.ts";
import type { Uplink } from "./messenger_uplink.ts";
import { MlsError } from "./mls_error.ts";
import { members } from "./mls_group.ts";
import { encrypt } from "./mls_messages.ts";
import { addToOutbox, type DeliveryFailure, type Outbox, outboxPart } from "./outbox.ts";
import type { ClientState } from "./state.ts";

const COMMIT_FIRST_MAX = 5;
const READ_BYTES = 64 << 10;

/** A message that the server has accepted. */
export interface Sent {
  readonly groupId: GroupId;
  readonly messageId: MessageId;
  /** Server's time, Unix ms. */
  readonly acceptedAt: number;
  /** How many devices it went to, this account's others among them. */
  readonly devices: number;
  /** Devices that did not get it, and why. `queueFull` is tried again later. */
  readonly failures: readonly (DeliveryFailure & { readonly user: string })[];
}

/** Bytes done of all bytes. */
export type Progress = (doneBytes: number, totalBytes: number) => void;

/** What to send as a file: a file on disk, or bytes with a name. */
export type FileSource =
  & ({ readonly path: string; readonly name?: string } | {
    readonly bytes: Uint8Array;
    readonly name: string;
  })
  & { readonly mediaType?: string; readonly onProgress?: Progress };

/** A file that was sent or received here. */
export interface KnownFile {
  readonly fileId: string;
  readonly group: GroupId;
  /** User name. */
  readonly from: string;
  readonly fromAccount: AccountId;
  /** Unix ms. */
  readonly at: number;
  readonly file: FileReference;
}

/** What a sender is made of. */
export interface SenderDeps {
  readonly state: ClientState;
  readonly uplink: Uplink;
  readonly contacts: Contacts;
  readonly store: GroupStore;
  readonly groups: Groups;
  readonly committer: Committer;
  readonly outbox: Outbox;
  readonly receiver: Receiver;
  readonly clock: Clock;
}

/** Sends messages and files. */
export class Sender {
  readonly #deps: SenderDeps;

  constructor(deps: SenderDeps) {
    this.#deps = deps;
  }

  /** A group by name or id, else the conversation with a user. `@name` is always a user. */
  async targetOf(target: string): Promise<GroupId> {
    const { groups, receiver } = this.#deps;
    // A removed member must not read what is sent now, and a new one must: so first hear what has happened.
    if (!receiver.isFollowing) await receiver.catchUp();
    const found = target.startsWith("@") ? undefined : groups.tryFind(target);
    return found ?? await groups.direct(target.replace(/^@/, ""));
  }

  /** Sends a text. */
  async send(target: string, text: string): Promise<Sent> {
    const groupId = await this.targetOf(target);
    return await this.#sendContent(groupId, { kind: "text", sentAtMs: this.#deps.clock.now(), text });
  }

  /** Encrypts a file, stores it on the server, and tells the group. */
  async sendFile(target: string, source: FileSource): Promise<Sent & { readonly fileId: string }> {
    const { state, clock } = this.#deps;
    const groupId = await this.targetOf(target);
    const cipher = newFileCipher();
    const sealedPath = join(state.folder, `upload-${hex(randomBytes(8))}.part`);
    try {
      const sealed = await encryptFileTo(sealedPath, bytesOf(source), cipher);
      const expiresAtMs = await this.#upload(sealedPath, { sealed, onProgress: source.onProgress });
      const file: FileReference = {
        blobSha256: sealed.sha256,
        key: cipher.key,
        chunkBytes: cipher.chunkBytes,
        size: sealed.size,
        name: safeFileName("path" in source ? source.name ?? basename(source.path) : source.name),
        mediaType: source.mediaType ?? "application/octet-stream",
        expiresAtMs,
        ...(ownDomain(state) === "" ? {} : { domain: ownDomain(state) }),
      };
      const sent = await this.#sendContent(groupId, { kind: "file", sentAtMs: clock.now(), file });
      const fileId = fileIdOf(sent.messageId);
      const { accountId } = ownAccount(state);
      const acceptedMs = sent.acceptedAt;
      await state.transaction((tx) =>
        addFile(tx, { fileId, groupId, senderAccountId: accountId, acceptedMs, file })
      );
      return { ...sent, fileId };
    } finally {
      await Deno.remove(sealedPath).catch(forgiveMissing);
    }
  }

  /** Files that were sent or received here, oldest first. */
  files(): KnownFile[] {
    const { state } = this.#deps;
    return state.all("files").map(({ fileId, groupId, senderAccountId, acceptedMs, file }) => ({
      fileId,
      group: groupId,
      from: nameIn(state, senderAccountId),
      fromAccount: senderAccountId,
      at: acceptedMs,
      file,
    }));
  }

  /** Fetches a file into `path`, or into the folder `path` under its own name. Returns where it is. */
  async getFile(fileId: string, path: string, options: { onProgress?: Progress } = {}): Promise<string> {
    const record = this.#deps.state.get("files", fileId);
    if (!record) throw new QpqError("notFound", `There is no file ${fileId} here`);
    const { file } = record;
    const target = await isFolder(path) ? join(path, file.name) : path;
    await this.#deps.uplink.retrying(async ({ connection }) => {
      const domain = this.#deps.store.foreign(file.domain ?? "");
      const download = await connection.getBlob({ sha256: file.blobSha256, domain });
      await decryptFileTo(target, download.body, {
        key: file.key,
        chunkBytes: file.chunkBytes,
        size: file.size,
        onProgress: (bytes) => options.onProgress?.(bytes, file.size),
      });
    });
    return target;
  }

  async #sendContent(
    groupId: GroupId,
    content: Exclude<MessageContent, { kind: "unsupported" }>,
  ): Promise<Sent> {
    const plaintext = encodeContent(content);
    await this.#evictUntrusted(groupId);
    for (let attempt = 1;; attempt++) {
      try {
        return await this.#sendOnce(groupId, plaintext);
      } catch (error) {
        const mustCommit = error instanceof MlsError && error.reason === "commitFirst";
        if (!mustCommit || attempt === COMMIT_FIRST_MAX) throw error;
        await this.#deps.committer.commit(groupId, () => ({})); // somebody wants to leave
      }
    }
  }

  /**
   * Nothing is sent to a device that its account has not signed. Whoever has another account key is a
   * person's decision; a device that the server does not name any more was revoked, and is removed.
   */
  async #evictUntrusted(groupId: GroupId): Promise<void> {
    const { state, store, contacts, committer } = this.#deps;
    const untrusted = () => store.untrusted(store.load(state, groupId).group);
    const accounts = new Map(untrusted().map((one) => [one.accountId, store.foreign(one.domain)]));
    for (const [accountId, domain] of accounts) {
      await contacts.refresh({ accountId, domain });
      const contact = state.get("contacts", accountId);
      if (contact?.offered) throw new AccountKeyChangedError(contactAddress(contact));
    }
    if (accounts.size === 0) return;
    await committer.commit(groupId, (group) => {
      const remove = store.untrusted(group).map((one) => one.deviceId);
      return remove.length > 0 ? { remove } : null;
    });
  }

  async #sendOnce(groupId: GroupId, plaintext: Uint8Array): Promise<Sent> {
    const { state, store, outbox, clock } = this.#deps;
    const { deviceId } = store.context.identity;
    const saved = await state.transaction(async (tx) => {
      const { row, group } = store.load(tx, groupId);
      if (row.broken) throw brokenGroup(row.name);
      const recipients = members(group).filter((one) => one.deviceId !== deviceId);
      if (recipients.length === 0) throw new TypeError("Nobody else is in this group: add somebody first");
      const made = await encrypt(group, plaintext);
      store.save(tx, { row, group: made.group });
      const parts = [outboxPart(made.bytes, recipients, (domain) => store.foreign(domain))];
      return { recipients, messageId: addToOutbox(tx, { parts, now: clock.now(), groupId }) };
    });
    const delivered = await outbox.deliver(saved.messageId);
    const failures = delivered.failures.map((failure) => {
      const accountId = saved.recipients.find((one) => one.deviceId === failure.deviceId)!.accountId;
      return { ...failure, accountId, user: nameIn(state, accountId) };
    });
    await this.#noteGoneDevices(groupId, failures);
    return {
      groupId,
      messageId: saved.messageId,
      acceptedAt: delivered.acceptedAt,
      devices: saved.recipients.length - failures.length,
      failures,
    };
  }

  /** Devices that are revoked or deleted still are in the group's keys: to be removed by a commit. */
  async #noteGoneDevices(
    groupId: GroupId,
    failures: readonly (DeliveryFailure & { accountId: AccountId })[],
  ): Promise<void> {
    const gone = failures.filter((failure) => failure.reason === "unknownDevice");
    if (gone.length === 0) return;
    const sinceMs = this.#deps.clock.now();
    await this.#deps.state.transaction((tx) => {
      for (const { accountId, deviceId } of gone) {
        addChore(tx, { kind: "removeDevice", groupId, accountId, deviceId, sinceMs });
      }
    });
    // Whoever registered again has another account key: time to say so.
    const { contacts } = this.#deps;
    for (const accountId of new Set(gone.map((one) => one.accountId))) {
      await contacts.refresh({ accountId, domain: contacts.domainOf(accountId) });
    }
  }

  /** Stores an encrypted file; returns when it may be gone. */
  async #upload(
    path: string,
    options: { sealed: SealedFile; onProgress: Progress | undefined },
  ): Promise<number> {
    const { sealed, onProgress } = options;
    const request = { sha256: sealed.sha256, size: BigInt(sealed.ciphertextBytes) };
    const { expiresAtMs } = await this.#deps.uplink.retrying(({ connection }) =>
      connection.putBlob(request, fileBytes(path, (bytes) => onProgress?.(bytes, sealed.ciphertextBytes)))
    );
    return Number(expiresAtMs);
  }
}

function brokenGroup(name: string): MlsError {
  return new MlsError(
    "futureEpoch",
    `Cannot send to ${name || "this group"} as a part of its history was lost: ` +
      "another member must take this account in again, or make the group anew",
  );
}

async function* bytesOf(source: FileSource): AsyncGenerator<Uint8Array, void, void> {
  if ("bytes" in source) yield source.bytes;
  else yield* fileBytes(source.path);
}

async function* fileBytes(
  path: string,
  onRead: (bytes: number) => void = () => {},
): AsyncGenerator<Uint8Array, void, void> {
  using file = await Deno.open(path, { read: true });
  let done = 0;
  while (true) {
    const buffer = new Uint8Array(READ_BYTES);
    const count = await file.read(buffer);
    if (count === null) return;
    done += count;
    yield buffer.subarray(0, count);
    onRead(done);
  }
}

async function isFolder(path: string): Promise<boolean> {
  try {
    return (await Deno.stat(path)).isDirectory;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

function forgiveMissing(error: unknown): void {
  if (!(error instanceof Deno.errors.NotFound)) throw error;
}
