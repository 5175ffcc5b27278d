/** What was received, as a line for people and as an object for programs. */
import type { ClientEvent, FileEvent, TextEvent } from "../../client/mod.ts";
import { indented, oneLine, sizeText, textWidth, timeText } from "./output.ts";

/** An event with a sender and a group. */
type GroupEvent = Extract<ClientEvent, { groupId: unknown }>;

/** Somebody said or sent something. */
export function isMessage(event: ClientEvent): event is TextEvent | FileEvent {
  return event.kind === "text" || event.kind === "file";
}

/** For `--json`: `group`, `from`, `seq`, `text` of every message, and what else is known. */
export function eventObject(event: ClientEvent): Record<string, unknown> {
  const { kind, id, seq, at } = event;
  const group = "groupId" in event
    ? {
      group: event.group,
      groupId: event.groupId,
      from: event.from,
      device: event.fromDevice,
      own: event.own,
    }
    : {};
  const base = { kind, ...group, seq, id, at: isoTime(at) };
  switch (event.kind) {
    case "text":
      return { ...base, text: event.text, sentAt: isoTime(event.sentAt) };
    case "file": {
      const { name, size, mediaType } = event.file;
      const file = { id: event.fileId, name, size, mediaType };
      return { ...base, text: "", file, sentAt: isoTime(event.sentAt) };
    }
    case "membersChanged":
      return { ...base, added: event.added, removed: event.removed };
    case "unreadable":
      return { ...base, reason: event.reason, ...(event.group === undefined ? {} : { group: event.group }) };
    case "deviceAdded":
    case "deviceRevoked":
      return { ...base, device: event.deviceId };
    case "accountKeyChanged":
      return { ...base, user: event.user };
    case "lost":
      return { ...base, count: event.count };
    case "changeDropped":
      return { ...base, group: event.group };
    case "deliveryFailed": {
      const { messageId, domain, users, devices, reason, group } = event;
      return {
        ...base,
        messageId,
        domain,
        users,
        devices,
        reason,
        ...(group === undefined ? {} : { group }),
      };
    }
    default:
      return base;
  }
}

/** How events are written for people. */
export interface EventLineOptions {
  /** How this program is called. */
  readonly program: string;
  /** In a chat: its group, which need not be named (undefined before its first message). */
  readonly chat?: { readonly groupId: string | undefined };
}

/** `14:05 [family] bob: text`; a conversation of two has no brackets. */
export function eventLine(event: ClientEvent, options: EventLineOptions): string {
  const time = timeText(event.at);
  if (!("groupId" in event)) return `${time} * ${accountText(event, options)}`;
  const place = placeOf(event, options);
  if (event.kind === "text") {
    const prefix = `${time} ${place}${senderOf(event)}: `;
    return prefix + indented(event.text, textWidth(prefix));
  }
  if (event.kind === "file") return `${time} ${place}${senderOf(event)} ${fileText(event, options)}`;
  return `${time} * ${place}${groupText(event, options)}`;
}

function placeOf(event: GroupEvent, { chat }: EventLineOptions): string {
  if (chat?.groupId === event.groupId) return "";
  if (!isDirect(event)) return `[${oneLine(event.group)}] `;
  return chat?.groupId === undefined ? "" : "(to you alone) ";
}

/** A conversation of two is called like the other. */
function isDirect(event: GroupEvent): boolean {
  return !event.own && event.group === event.from;
}

function senderOf(event: GroupEvent): string {
  return oneLine(event.from);
}

function fileText({ fileId, file }: FileEvent, { program, chat }: EventLineOptions): string {
  const get = chat ? "/get" : `${program} file get`;
  return `sent ${oneLine(file.name)} (${sizeText(file.size)}); to get it: ${get} ${fileId}`;
}

function groupText(event: GroupEvent, { program }: EventLineOptions): string {
  const from = oneLine(event.from);
  const group = oneLine(event.group);
  switch (event.kind) {
    case "joined":
      if (event.own) return `your other device added this one to ${group}`;
      return isDirect(event)
        ? `${from} began a conversation with you`
        : `${from} added this device to ${group}`;
    case "membersChanged":
      return [
        ...(event.added.length > 0 ? [`${from} added ${names(event.added, event)}`] : []),
        ...(event.removed.length > 0 ? [`${from} removed ${names(event.removed, event)}`] : []),
      ].join(", ") || `${from} renewed the keys`;
    case "removedFromGroup":
      return `${from} removed this device from ${group}: nothing more can be read or sent there`;
    case "leaving":
      return `${from} leaves ${group}`;
    case "missedCommit":
      return `a part of ${group} was missed: ask another member to run: ${program} group readd ${group} YOU`;
    case "unsupported":
      return `${from} sent something that this version cannot show; a newer one may`;
    default:
      return `${event.kind} in ${group}`;
  }
}

/** Whoever adds or removes themselves does it with another of their devices. */
function names(users: readonly string[], { from }: { from: string }): string {
  return users.map((user) => user === from ? "another device of theirs" : oneLine(user)).join(", ");
}

function accountText(event: Exclude<ClientEvent, GroupEvent>, { program }: EventLineOptions): string {
  switch (event.kind) {
    case "unreadable":
      return event.reason === "untrusted"
        ? "A message waits until you have verified its sender's new key (see above)"
        : `A message${event.group ? ` in ${oneLine(event.group)}` : ""} could not be read: ${event.reason}`;
    case "deviceAdded":
      return `A new device of your account was logged in: ${event.deviceId}. If that was not you: ` +
        `${program} devices revoke ${event.deviceId}, then ${program} passwd`;
    case "deviceRevoked":
      return `A device of your account was revoked: ${event.deviceId}`;
    case "accountKeyChanged":
      return `The account key of ${event.user} has changed: they registered again, or the server lies. ` +
        `Compare the safety number with them: ${program} verify ${event.user}`;
    case "lost":
      return `${event.count} ${event.count === 1 ? "message was" : "messages were"} lost: ` +
        "they expired, or the queue of this device was full";
    case "changeDropped":
      return `Your change of ${
        oneLine(event.group)
      } was not made, as another member's came first: make it again`;
    case "deliveryFailed":
      return deliveryFailedText(event);
  }
}

const FAILURES: Record<DeliveryFailed["reason"], string> = {
  expired: "their server could not be reached for too long",
  unknownDevice: "the device was revoked or deleted",
  queueFull: "the queue of the device is full",
  blocked: "they block you",
  refused: "their server refused it",
  peerRemoved: "your server no longer exchanges messages with theirs",
};

type DeliveryFailed = Extract<ClientEvent, { kind: "deliveryFailed" }>;

function deliveryFailedText({ at, users, domain, devices, reason, group }: DeliveryFailed): string {
  const who = users.length > 0 ? users.map(oneLine).join(", ") : `${devices.length} devices`;
  const where = group === undefined ? "" : ` in ${oneLine(group)}`;
  return `A message of yours${where} did not reach ${who} on ${oneLine(domain)}: ${FAILURES[reason]} (${
    timeText(at)
  })`;
}

/** Times of others may be anything. */
function isoTime(unixMs: number): string | null {
  const time = new Date(unixMs);
  return Number.isNaN(time.getTime()) ? null : time.toISOString();
}
