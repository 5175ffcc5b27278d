/** Messages that came before their time: how many wait, for how long, and what is said when they are given up. */
import assert from "node:assert/strict";
import { type EntryId, type GroupId, randomId } from "../../../mod/base/ids.ts";
import {
  earlyOf,
  expireEarly,
  giveUpGroup,
  hasOverdue,
  keepEarly,
  keepStranger,
  nextEarly,
} from "../../../mod/client/inbox_early.ts";
import { ClientState } from "../../../mod/client/state.ts";
import type { EarlyRecord, GroupRecord } from "../../../mod/client/state_records.ts";
import { tempFolder } from "../../support/temp_folder.ts";

const DAY_MS = 86_400_000;
const GROUP = randomId<GroupId>();
const EMPTY = new Uint8Array(1);

function early(changes: Partial<EarlyRecord> = {}): EarlyRecord {
  return {
    entryId: randomId<EntryId>(),
    groupId: GROUP,
    epoch: 7,
    isCommit: false,
    seq: 1,
    acceptedMs: 0,
    receivedMs: 0,
    senderDomain: "b.test",
    payload: EMPTY,
    ...changes,
  };
}

const group: GroupRecord = {
  id: GROUP,
  name: "team",
  mls: { base: EMPTY, delta: EMPTY },
  status: "active",
  joinedMs: 0,
  seq: 0,
  names: {},
};

async function withState(work: (state: ClientState) => Promise<void>): Promise<void> {
  await using folder = await tempFolder();
  await using state = await ClientState.open({ folder: folder.path });
  await work(state);
}

Deno.test("nextEarly() takes epochs in order, and the commit of an epoch last", () =>
  withState(async (state) => {
    const rows = [
      early({ epoch: 8 }),
      early({ isCommit: true }),
      early(),
      early({ groupId: randomId<GroupId>() }),
    ];
    await state.transaction((tx) => rows.forEach((row) => keepEarly(tx, row)));
    const next = (epoch: number) => nextEarly(state, (id) => id === GROUP ? epoch : undefined)?.entryId;
    assert.equal(next(6), undefined);
    assert.equal(next(7), rows[2]!.entryId);
    await state.transaction((tx) => tx.delete("early", rows[2]!.entryId));
    assert.equal(next(8), rows[1]!.entryId);
    await state.transaction((tx) => tx.delete("early", rows[1]!.entryId));
    assert.equal(next(8), rows[0]!.entryId);
  }));

Deno.test("keepEarly() is bounded in number and bytes for each group", () =>
  withState(async (state) => {
    await state.transaction((tx) => {
      for (let count = 0; count < 1_000; count++) assert.ok(keepEarly(tx, early()));
      assert.ok(!keepEarly(tx, early()));
      const groupId = randomId<GroupId>();
      const large = { groupId, payload: new Uint8Array(5 << 20) };
      assert.ok(keepEarly(tx, early(large)));
      assert.ok(!keepEarly(tx, early(large)));
      assert.ok(keepEarly(tx, early({ groupId })));
    });
  }));

Deno.test("keepStranger() is bounded for all groups together that this device is not in", () =>
  withState(async (state) => {
    await state.transaction((tx) => {
      for (let count = 0; count < 300; count++) {
        keepStranger(tx, early({ groupId: randomId<GroupId>() }), () => undefined);
      }
      assert.equal(tx.all("early").length, 200);
      assert.ok(keepEarly(tx, early()), "the groups of this device have room of their own");
    });
  }));

Deno.test("expireEarly() gives a group up after four days, and says so once", () =>
  withState(async (state) => {
    await state.transaction((tx) => {
      tx.put("groups", GROUP, group);
      keepEarly(tx, early());
      keepEarly(tx, early({ receivedMs: 3 * DAY_MS }));
    });
    assert.ok(!hasOverdue(state, 4 * DAY_MS));
    const now = 4 * DAY_MS + 1;
    assert.ok(hasOverdue(state, now));
    await state.transaction((tx) => {
      expireEarly(tx, now);
      giveUpGroup(tx, { groupId: GROUP, now });
    });
    assert.deepEqual(earlyOf(state, GROUP), []);
    assert.equal(state.get("groups", GROUP)!.broken, true);
    assert.deepEqual(state.all("inbox").map((row) => row.notice), [{ kind: "missedCommit" }]);
  }));

Deno.test("expireEarly() drops what waited for a Welcome in silence", () =>
  withState(async (state) => {
    await state.transaction((tx) => keepStranger(tx, early(), () => undefined));
    await state.transaction((tx) => expireEarly(tx, 5 * DAY_MS));
    assert.deepEqual([state.all("early"), state.all("inbox")], [[], []]);
  }));
