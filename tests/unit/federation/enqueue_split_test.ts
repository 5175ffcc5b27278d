/** Who gets what of an Enqueue that other servers have a part in, and in which order the statuses come. */
import assert from "node:assert/strict";
import { create, fromBinary } from "@bufbuild/protobuf";
import { concat, randomBytes, utf8 } from "../../../mod/base/bytes.ts";
import { type AccountId, type DeviceId, randomId } from "../../../mod/base/ids.ts";
import { splitEnqueue } from "../../../mod/federation/enqueue_split.ts";
import { RelayedMessageSchema } from "../../../mod/protocol/federation_pb.ts";
import { EnqueueRequestSchema, RecipientStatus } from "../../../mod/protocol/qpq_pb.ts";

const DOMAINS = {
  own: "a.example",
  isPeer: (domain: string) => domain === "b.example" || domain === "c.example",
  domainsMax: 3,
};
const SENDER = { accountId: randomId<AccountId>(), deviceId: randomId<DeviceId>() };
const COMMIT = concat(Uint8Array.of(0, 1, 0, 2, 1, 7), new Uint8Array(8), Uint8Array.of(3, 0, 0, 1, 1));

const ids = (count: number) => Array.from({ length: count }, () => randomBytes(16));
const remote = (domain: string, count = 1) => ({ domain, recipients: ids(count) });

function split(
  parts: { payload?: Uint8Array; recipients?: Uint8Array[]; remote?: ReturnType<typeof remote>[] }[],
  hub = "",
) {
  const request = create(EnqueueRequestSchema, {
    messageId: randomBytes(16),
    parts: parts.map((part) => ({ payload: utf8("x"), ...part })),
    guard: { groupId: utf8("g"), hub },
  });
  return splitEnqueue(request, { sender: SENDER, domains: DOMAINS });
}

Deno.test("splitEnqueue() gives each server its own parts, and this one those of its domain", () => {
  const [first, second] = [
    { recipients: ids(1), remote: [remote("b.example", 2), remote("a.example")] },
    { remote: [remote("c.example"), remote("b.example")] },
  ];
  const { parts, remote: elsewhere, hub } = split([first, second]);
  assert.deepEqual([parts.map(({ recipients }) => recipients.length), hub], [[2, 0], null]);
  const bodies = elsewhere.map(({ domain, body }) => {
    const message = fromBinary(RelayedMessageSchema, body!);
    return [domain, message.parts.map(({ recipients, remote }) => [recipients.length, remote.length])];
  });
  assert.deepEqual(bodies, [["b.example", [[2, 0], [1, 0]]], ["c.example", [[1, 0]]]]);
});

Deno.test("splitEnqueue() puts statuses into the order of the request", () => {
  const { OK, BLOCKED, RELAYING, QUEUE_FULL, UNKNOWN_DOMAIN, UNKNOWN_DEVICE } = RecipientStatus;
  const { statuses } = split([
    { payload: COMMIT, recipients: ids(1), remote: [remote("c.example", 2), remote("d.example")] },
    { remote: [remote("b.example"), remote("a.example"), remote("c.example")] },
  ], "c.example");
  const result = statuses({ local: ["blocked", "ok"], remote: ["queueFull"], hub: [OK, UNKNOWN_DEVICE, OK] });
  assert.deepEqual(result, [BLOCKED, OK, UNKNOWN_DEVICE, UNKNOWN_DOMAIN, QUEUE_FULL, OK, OK]);
  const relayed = split([{ remote: [remote("b.example")] }]).statuses({
    local: [],
    remote: ["relaying"],
    hub: [],
  });
  assert.deepEqual(relayed, [RELAYING]);
});

Deno.test("splitEnqueue() shows the hub the commit also when no device of it gets anything", () => {
  const { hub, remote: elsewhere } = split([
    { payload: COMMIT, remote: [remote("b.example")] },
    { remote: [remote("b.example")] },
  ], "c.example");
  assert.deepEqual(hub!.message.parts.map(({ recipients }) => recipients.length), [0]);
  assert.deepEqual(elsewhere.map(({ domain, body }) => [domain, body === null]), [
    ["c.example", true],
    ["b.example", false],
  ]);
});

Deno.test("splitEnqueue() refuses domains twice in a part, not in normal form, too many, a hub that is no peer", () => {
  const refused = (code: string, make: () => unknown) => assert.throws(make, { code });
  refused("malformedRequest", () => split([{ remote: [remote("b.example"), remote("b.example")] }]));
  refused("malformedRequest", () => split([{ remote: [remote("B.example")] }]));
  refused("malformedRequest", () => split([{ remote: [remote("b.example", 0)] }]));
  refused(
    "malformedRequest",
    () =>
      split([{
        remote: [remote("b.example"), remote("c.example"), remote("d.example"), remote("e.example")],
      }]),
  );
  refused("unknownDomain", () => split([{ recipients: ids(1) }], "d.example"));
});
