/** What a client tells its user: rows of the inbox in words. */
import type { AccountId, DeviceId, GroupId, MessageId } from "../base/ids.ts";
import { decodeContent, type FileReference } from "./content.ts";
import { fileIdOf } from "./inbox_rows.ts";
import { nameIn } from "./messenger_contacts.ts";
import type { StateReader } from "./state.ts";
import type { DeliveryFailedReason, GroupRecord, InboxNotice, InboxRecord } from "./state_records.ts";

/** What every event has. */
interface EventBase {
  /** The same when the event is shown again after a crash. */
  readonly id: string;
  /** Number in this device's delivery queue: the order of arrival. 0 for what did not come through it. */
  readonly seq: number;
  /** When the server accepted it, Unix ms. */
  readonly at: number;
}

/** What every event of a group has. */
interface GroupEventBase extends EventBase {
  /** Name of the group; of a conversation of two, the other's user name. */
  readonly group: string;
  readonly groupId: GroupId;
  /** User name, with the domain of another server. */
  readonly from: string;
  readonly fromAccount: AccountId;
  readonly fromDevice: DeviceId;
  /** It comes from another device of this account. */
  readonly own: boolean;
}

/** A text message. */
export interface TextEvent extends GroupEventBase {
  readonly kind: "text";
  readonly text: string;
  /** When its sender says it was sent, Unix ms. */
  readonly sentAt: number;
}

/** A file; get it with `client.getFile(event.fileId, path)`. */
export interface FileEvent extends GroupEventBase {
  readonly kind: "file";
  readonly fileId: string;
  readonly file: FileReference;
  readonly sentAt: number;
}

/** Something else that happened in a group. */
export type GroupEvent =
  /** A message of a kind that this version does not know. */
  | GroupEventBase & { readonly kind: "unsupported" }
  /** `from` has added this device. */
  | GroupEventBase & { readonly kind: "joined" }
  /** User names. */
  | GroupEventBase & {
    readonly kind: "membersChanged";
    readonly added: readonly string[];
    readonly removed: readonly string[];
  }
  /** `from` has removed this device: nothing more can be read or sent. */
  | GroupEventBase & { readonly kind: "removedFromGroup" }
  /** `from` wants to leave. */
  | GroupEventBase & { readonly kind: "leaving" }
  /** Part of the group's history was lost: another member must remove and add this account again. */
  | GroupEventBase & { readonly kind: "missedCommit" };

/** Something that concerns the account or the queue. */
export type AccountEvent =
  /** A message could not be read; `untrusted`: it waits until somebody's account key is trusted. */
  | EventBase & { readonly kind: "unreadable"; readonly reason: string; readonly group?: string }
  | EventBase & { readonly kind: "deviceAdded" | "deviceRevoked"; readonly deviceId: DeviceId }
  /** Somebody's account key is another one: compare the safety number before you trust it. */
  | EventBase & { readonly kind: "accountKeyChanged"; readonly user: string; readonly accountId: AccountId }
  /** A change of a group that waited for another server is given up, as another member's came first: make it again. */
  | EventBase & { readonly kind: "changeDropped"; readonly group: string }
  /** A message that was accepted for another server did not reach these users there, or some of their devices. */
  | EventBase & {
    readonly kind: "deliveryFailed";
    readonly messageId: MessageId;
    readonly domain: string;
    readonly users: readonly string[];
    readonly devices: readonly DeviceId[];
    readonly reason: DeliveryFailedReason;
    readonly group?: string;
  }
  /** Messages expired, or were refused because this device's queue was full. */
  | EventBase & { readonly kind: "lost"; readonly count: number };

/** What {@link Client.receive} yields. */
export type ClientEvent = TextEvent | FileEvent | GroupEvent | AccountEvent;

/** Name of a group as a person knows it. */
export function groupLabel(reader: StateReader, row: GroupRecord): string {
  if (row.name !== "") return row.name;
  return row.direct ? nameIn(reader, row.direct) : labelOfNameless(row.id);
}

function labelOfNameless(groupId: GroupId): string {
  return `group-${groupId.slice(0, 8)}`;
}

/** The event that a row stands for. */
export function eventOf(reader: StateReader, row: InboxRecord): ClientEvent {
  const base: EventBase = { id: row.entryId, seq: row.seq, at: row.acceptedMs };
  const group = row.groupId === "" ? undefined : reader.get("groups", row.groupId);
  // A group may have been left or forgotten since its message came.
  const label = group ? groupLabel(reader, group) : labelOfNameless(row.groupId);
  if (row.notice && !isOfGroup(row.notice)) {
    return accountEvent(reader, { base, notice: row.notice, ...(group ? { group: label } : {}) });
  }
  const inGroup: GroupEventBase = {
    ...base,
    group: label,
    groupId: row.groupId,
    from: nameIn(reader, row.senderAccountId),
    fromAccount: row.senderAccountId,
    fromDevice: row.senderDeviceId,
    own: row.senderAccountId === reader.one("account")?.accountId,
  };
  if (row.notice) return groupEvent(reader, { inGroup, notice: row.notice });
  const content = decodeContent(row.content);
  const { sentAtMs: sentAt } = content;
  if (content.kind === "text") return { ...inGroup, kind: "text", text: content.text, sentAt };
  if (content.kind === "unsupported") return { ...inGroup, kind: "unsupported" };
  return { ...inGroup, kind: "file", fileId: fileIdOf(row.entryId), file: content.file, sentAt };
}

type GroupNotice = Extract<
  InboxNotice,
  { kind: "joined" | "membersChanged" | "removedFromGroup" | "leaving" | "missedCommit" }
>;

function isOfGroup(notice: InboxNotice): notice is GroupNotice {
  return ["joined", "membersChanged", "removedFromGroup", "leaving", "missedCommit"].includes(notice.kind);
}

function groupEvent(
  reader: StateReader,
  { inGroup, notice }: { inGroup: GroupEventBase; notice: GroupNotice },
): GroupEvent {
  if (notice.kind !== "membersChanged") return { ...inGroup, kind: notice.kind };
  const names = (accounts: readonly AccountId[]) => accounts.map((accountId) => nameIn(reader, accountId));
  return { ...inGroup, kind: notice.kind, added: names(notice.added), removed: names(notice.removed) };
}

function accountEvent(
  reader: StateReader,
  { base, notice, group }: { base: EventBase; notice: Exclude<InboxNotice, GroupNotice>; group?: string },
): AccountEvent {
  switch (notice.kind) {
    case "unreadable":
      return { ...base, kind: notice.kind, reason: notice.reason, ...(group === undefined ? {} : { group }) };
    case "deviceAdded":
    case "deviceRevoked":
      return { ...base, kind: notice.kind, deviceId: notice.deviceId };
    case "accountKeyChanged":
      return {
        ...base,
        kind: notice.kind,
        user: nameIn(reader, notice.accountId),
        accountId: notice.accountId,
      };
    case "lost":
      return { ...base, kind: notice.kind, count: notice.count };
    case "changeDropped":
      return { ...base, kind: notice.kind, group: group ?? "" };
    case "deliveryFailed": {
      const users = usersOf(reader, notice.devices);
      return { ...base, ...notice, users, ...(group === undefined ? {} : { group }) };
    }
  }
}

/** Whose devices these are, as far as it is known. */
function usersOf(reader: StateReader, devices: readonly DeviceId[]): string[] {
  const owners = reader.all("contacts").filter((contact) =>
    devices.some((device) => contact.devices?.[device] !== undefined)
  );
  return owners.map(({ accountId }) => nameIn(reader, accountId));
}
