/** What tests of federation send and wait for. */
import assert from "node:assert/strict";
import { fromBinary } from "@bufbuild/protobuf";
import { concat, randomBytes, sha256, utf8, utf8Text } from "../../mod/base/bytes.ts";
import {
  type DeliveryFailed,
  type EnqueueResponse,
  type Entry,
  EntryKind,
  NoticeSchema,
} from "../../mod/protocol/qpq_pb.ts";
import type { TestClient } from "./test_client.ts";

/** Devices of one other server. */
export interface ElseWhere {
  readonly domain: string;
  readonly devices: readonly Uint8Array[];
}

/** Enqueues one payload for devices of other servers, and maybe of one's own. */
export async function send(
  from: TestClient,
  to: readonly ElseWhere[],
  message: { text: string; here?: Uint8Array[]; messageId?: Uint8Array; ttlS?: number },
): Promise<EnqueueResponse> {
  return await from.connection.call("enqueue", {
    messageId: message.messageId ?? randomBytes(16),
    parts: [{
      payload: utf8(message.text),
      recipients: message.here ?? [],
      remote: to.map(({ domain, devices }) => ({ domain, recipients: [...devices] })),
    }],
    ttlS: message.ttlS ?? 0,
  });
}

/** Waits for `count` entries behind `after`. */
export async function receive(client: TestClient, count: number, after = 0n): Promise<Entry[]> {
  const entries: Entry[] = [];
  while (entries.length < count) {
    const fetched = await client.connection.call("fetchWait", {
      fetch: { after: entries.at(-1)?.seq ?? after },
      timeoutMs: 20_000,
    });
    assert.ok(fetched.entries.length > 0, `only ${entries.length} of ${count} came`);
    entries.push(...fetched.entries);
  }
  return entries;
}

/** Payloads as text. */
export function textsOf(entries: readonly Entry[]): string[] {
  return entries.map(({ payload }) => utf8Text(payload));
}

/** The failure that an entry tells its sender of. */
export function failureOf(entry: Entry): DeliveryFailed {
  assert.equal(entry.kind, EntryKind.NOTICE);
  const { notice } = fromBinary(NoticeSchema, entry.payload);
  assert.equal(notice.case, "deliveryFailed");
  return notice.value as DeliveryFailed;
}

/** A group as its hub knows it: the token of each epoch. */
export class TestGroup {
  readonly id = randomBytes(16);
  readonly #tokens: Uint8Array[] = [];

  /** A commit that leaves `epoch`, as any member can make it. */
  async commit(epoch: number): Promise<{ payload: Uint8Array; guard: GuardInit }> {
    const payload = concat(
      Uint8Array.of(0, 1, 0, 2, this.id.length),
      this.id,
      new Uint8Array(new BigUint64Array([BigInt(epoch)]).buffer).reverse(),
      Uint8Array.of(3, 0, 0, 32),
      randomBytes(32),
    );
    const guard = {
      groupId: this.id,
      epoch: BigInt(epoch),
      token: this.#token(epoch),
      nextTokenSha256: await sha256(this.#token(epoch + 1)),
    };
    return { payload, guard };
  }

  #token(epoch: number): Uint8Array {
    return this.#tokens[epoch] ??= randomBytes(32);
  }
}

/** A commit guard without its hub. */
export interface GuardInit {
  readonly groupId: Uint8Array;
  readonly epoch: bigint;
  readonly token: Uint8Array;
  readonly nextTokenSha256: Uint8Array;
}
