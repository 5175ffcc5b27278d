/** Saving groups: what is read back goes on as if nothing had happened, and a message saves little. */
import assert from "node:assert/strict";
import { type Bytes, hex, utf8, utf8Text } from "../../../mod/base/bytes.ts";
import { MLS_SUITE_XWING } from "../../../mod/base/mls_suites.ts";
import { addMembers, adoptCommit, proposeLeave, update } from "../../../mod/client/mls_commits.ts";
import { MlsError } from "../../../mod/client/mls_error.ts";
import {
  decodeGroup,
  encodeGroup,
  epochAuthenticator,
  groupInfo,
  members,
} from "../../../mod/client/mls_group.ts";
import type { OwnKeyPackage } from "../../../mod/client/mls_key_packages.ts";
import { encrypt, processMessage } from "../../../mod/client/mls_messages.ts";
import type { StoredGroup } from "../../../mod/client/mls_state.ts";
import { add, deliver, type TestDevice, TestWorld } from "./mls_fixture.ts";

async function groupOf(size: number, world = new TestWorld()): Promise<TestDevice[]> {
  const devices: TestDevice[] = [await world.device("0")];
  await world.found(devices[0]!);
  for (let index = 1; index < size; index++) {
    const joiner = await world.device(String(index));
    await add(world, devices[0]!, { joiner, others: devices });
    devices.push(joiner);
  }
  return devices;
}

/** As if the process had ended: nothing in memory is shared with what is read. */
function reload(device: TestDevice, stored: StoredGroup): void {
  const { base, delta } = stored;
  device.group = decodeGroup(device.context, { base: base.slice(), delta: delta.slice() });
}

async function send(from: TestDevice, text: string): Promise<Bytes> {
  const sent = await encrypt(from.group!, utf8(text));
  from.group = sent.group;
  return sent.bytes;
}

async function receive(to: TestDevice, bytes: Bytes): Promise<string> {
  const got = await processMessage(to.context, to.group!, bytes);
  assert(got.kind === "application");
  to.group = got.group;
  return utf8Text(got.plaintext);
}

for (const suite of [1, MLS_SUITE_XWING] as const) {
  Deno.test(`a group of suite ${suite} read back goes on: out of order, across epochs, both ways`, async () => {
    const [alice, bob] = await groupOf(3, new TestWorld(suite)) as [TestDevice, TestDevice];
    const old = [await send(alice, "0"), await send(alice, "1"), await send(alice, "2")];
    assert.equal(await receive(bob, old[1]!), "1");
    const first = encodeGroup(bob.group!);
    reload(bob, first);
    assert.equal(await receive(bob, old[0]!), "0");
    const authenticator = hex(epochAuthenticator(bob.group!));
    assert.equal(authenticator, hex(epochAuthenticator(alice.group!)));
    await deliver(alice, await update(alice.context, alice.group!), [bob]);
    reload(bob, encodeGroup(bob.group!, first));
    assert.equal(await receive(bob, old[2]!), "2");
    await assert.rejects(() => processMessage(bob.context, bob.group!, old[0]!), MlsError);
    reload(bob, encodeGroup(bob.group!));
    await assert.rejects(() => processMessage(bob.context, bob.group!, old[2]!), MlsError);
    const pending = await update(bob.context, bob.group!);
    await deliver(bob, pending, [alice]);
    reload(alice, encodeGroup(alice.group!));
    assert.equal(await receive(alice, await send(bob, "on")), "on");
    assert.deepEqual(members(alice.group!), members(bob.group!));
    assert.deepEqual(groupInfo(alice.group!).creator, groupInfo(bob.group!).creator);
  });
}

Deno.test("encodeGroup() keeps the base while only messages come, old epochs included", async () => {
  const [alice, bob, carol] = await groupOf(3) as [TestDevice, TestDevice, TestDevice];
  const late = await send(carol, "late");
  await deliver(alice, await update(alice.context, alice.group!), [bob, carol]);
  let stored = encodeGroup(bob.group!);
  const { base } = stored;
  const others: Bytes[] = [];
  for (let number = 0; number < 5; number++) others.push(await send(alice, String(number)));
  for (const bytes of [others[4]!, others[0]!, late]) {
    await receive(bob, bytes);
    stored = encodeGroup(bob.group!, stored);
    assert.equal(stored.base, base);
  }
  await send(bob, "mine");
  stored = encodeGroup(bob.group!, stored);
  assert.equal(stored.base, base);
  reload(bob, stored);
  for (const bytes of [others[4]!, others[0]!, late]) {
    await assert.rejects(() => processMessage(bob.context, bob.group!, bytes), MlsError);
  }
  assert.equal(await receive(bob, others[2]!), "2");
  assert.equal(await receive(alice, await send(bob, "again")), "again", "own keys are not used twice");
});

Deno.test("encodeGroup() saves little for a message, however large the group", async () => {
  const world = new TestWorld();
  const [alice, bob] = await groupOf(2, world) as [TestDevice, TestDevice];
  const owns: OwnKeyPackage[] = [];
  for (let index = 0; index < 30; index++) {
    owns.push(await world.keyPackage(await world.device(String(index))));
  }
  const pending = await addMembers(alice.context, alice.group!, owns.map((own) => own.publicBytes));
  await deliver(alice, pending, [bob]);
  let stored = encodeGroup(bob.group!);
  assert(stored.base.length > 10_000);
  await receive(bob, await send(alice, "hello"));
  stored = encodeGroup(bob.group!, stored);
  assert(stored.delta.length < 300, `${stored.delta.length} bytes`);
});

Deno.test("encodeGroup() writes a new base when a proposal waits, and the proposal survives", async () => {
  const [alice, bob, carol] = await groupOf(3) as [TestDevice, TestDevice, TestDevice];
  const stored = encodeGroup(bob.group!);
  const asked = await proposeLeave(carol.group!);
  bob.group = (await processMessage(bob.context, bob.group!, asked.bytes)).group;
  alice.group = (await processMessage(alice.context, alice.group!, asked.bytes)).group;
  const next = encodeGroup(bob.group, stored);
  assert.notEqual(next.base, stored.base);
  reload(bob, next);
  assert.equal(groupInfo(bob.group!).leaving.length, 1);
  await deliver(bob, await update(bob.context, bob.group!), [alice]);
  assert.equal(members(alice.group!).length, 2);
});

Deno.test("a pending commit survives a restart and is adopted afterwards", async () => {
  const [alice, bob] = await groupOf(2) as [TestDevice, TestDevice];
  const early = await send(bob, "early");
  const pending = await update(alice.context, alice.group!);
  const saved = encodeGroup(pending.group);
  await receive(alice, early);
  reload(alice, encodeGroup(alice.group!));
  const next = decodeGroup(alice.context, { base: saved.base.slice(), delta: saved.delta.slice() });
  alice.group = adoptCommit(alice.group!, next);
  bob.group = (await processMessage(bob.context, bob.group!, pending.commit)).group;
  assert.equal(await receive(alice, await send(bob, "on")), "on");
  await assert.rejects(() => processMessage(alice.context, alice.group!, early), MlsError);
});

Deno.test("decodeGroup() refuses damaged and newer parts", async () => {
  const [alice, bob] = await groupOf(2) as [TestDevice, TestDevice];
  let stored = encodeGroup(alice.group!);
  await receive(alice, await send(bob, "x"));
  stored = encodeGroup(alice.group!, stored);
  const { base, delta } = stored;
  const wrong: StoredGroup[] = [
    { base: base.with(0, 2), delta },
    { base, delta: delta.with(0, 2) },
    { base: base.slice(0, -1), delta },
    { base, delta: delta.slice(0, -1) },
  ];
  for (const parts of wrong) assert.throws(() => decodeGroup(alice.context, parts), MlsError);
});
