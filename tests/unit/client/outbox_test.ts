import assert from "node:assert/strict";
import { type DeviceId, randomId } from "../../../mod/base/ids.ts";
import { addToOutbox, outboxPart, requestIn } from "../../../mod/client/outbox.ts";
import type { StateTransaction } from "../../../mod/client/state.ts";
import type { OutboxRecord } from "../../../mod/client/state_records.ts";
import { hex } from "../../../mod/base/bytes.ts";

Deno.test("addToOutbox() makes message ids in the order of time, none twice", () => {
  const rows: OutboxRecord[] = [];
  const tx = { put: (_table: string, _key: string, row: OutboxRecord) => rows.push(row) };
  const parts = [{ payload: new Uint8Array([1]), recipients: [randomId<DeviceId>()] }];
  const ids = Array.from(
    { length: 200 },
    (_, minute) =>
      addToOutbox(tx as unknown as StateTransaction, { parts, now: 1_790_000_000_000 + minute * 60_000 }),
  );
  assert.deepEqual(ids, ids.toSorted());
  assert.equal(new Set(ids.map((id) => id.slice(12))).size, ids.length);
  assert.deepEqual(rows.map((row) => hex(requestIn(row).messageId)), ids);
});

Deno.test("outboxPart() sorts devices by server, the own one's apart", () => {
  const device = (domain: string) => ({ deviceId: randomId<DeviceId>(), domain });
  const all = [device("b.test"), device("a.test"), device(""), device("c.test"), device("b.test")];
  const [b1, own1, own2, c, b2] = all.map((one) => one.deviceId);
  const part = outboxPart(new Uint8Array(1), all, (domain) => domain === "a.test" ? "" : domain);
  assert.deepEqual(part.recipients, [own1, own2]);
  assert.deepEqual(part.remote, [{ domain: "b.test", recipients: [b1, b2] }, {
    domain: "c.test",
    recipients: [c],
  }]);
  assert.equal("remote" in outboxPart(new Uint8Array(1), [device("")], () => ""), false);
});
