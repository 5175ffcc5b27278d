/** The requests of a simulation's devices: messages that carry their number, and commits as far as servers read them. */
import { createHash } from "node:crypto";
import { type Bytes, concat, copy, fromHex, utf8 } from "../../mod/base/bytes.ts";
import type { SimMessage } from "./model.ts";

/** A message with the id that makes it be accepted once. */
export type IdentifiedMessage = SimMessage & { readonly id: Bytes };

/** A commit guard as a member makes it. */
export interface GuardInit {
  readonly groupId: Uint8Array;
  readonly epoch: bigint;
  readonly token: Uint8Array;
  readonly nextTokenSha256: Uint8Array;
}

/** What a member of the epoch can derive, and nobody else. */
export function tokenOf(group: string, epoch: number): Bytes {
  return copy(createHash("sha256").update(`token of ${group} in ${epoch}`).digest());
}

/** The guard of a commit that leaves `epoch`. */
export function guardOf(group: string, epoch: number): GuardInit {
  return {
    groupId: utf8(group),
    epoch: BigInt(epoch),
    token: tokenOf(group, epoch),
    nextTokenSha256: copy(createHash("sha256").update(tokenOf(group, epoch + 1)).digest()),
  };
}

/** A PrivateMessage (RFC 9420 §6.3) as far as servers read it: its number is in the authenticated data. */
export function commitBytes(group: string, epoch: number, number: number): Bytes {
  const vector = (bytes: Uint8Array) => concat(Uint8Array.of(bytes.length), bytes);
  const head = new Uint8Array(9);
  new DataView(head.buffer).setBigUint64(0, BigInt(epoch));
  head[8] = 3; // a commit
  const rest = [vector(utf8(`#${number}#`)), vector(new Uint8Array(4)), vector(new Uint8Array(8))];
  return concat(Uint8Array.of(0, 1, 0, 2), vector(utf8(group)), head, ...rest);
}

/** The number in a payload. */
export function numberIn(payload: Uint8Array): number {
  return Number(/#(\d+)#/.exec(String.fromCharCode(...payload.subarray(0, 80)))?.[1] ?? NaN);
}

/** The Enqueue of a message. */
export function requestOf(message: IdentifiedMessage, guard: GuardInit | null) {
  return {
    messageId: message.id,
    parts: [{ payload: message.payload, recipients: message.recipients.map(fromHex) }],
    ttlS: 0,
    ...(guard ? { guard } : {}),
  };
}
