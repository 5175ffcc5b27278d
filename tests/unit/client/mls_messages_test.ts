/** Messages of a group: reading, order, padding, and each refusal. */
import assert from "node:assert/strict";
import { createCommit, createProposal, encodeMlsMessage, type Proposal } from "ts-mls";
import { type Bytes, copy, randomBytes, utf8, utf8Text } from "../../../mod/base/bytes.ts";
import { type DeviceId, randomId } from "../../../mod/base/ids.ts";
import { MLS_SUITE_XWING } from "../../../mod/base/mls_suites.ts";
import { addMembers, proposeLeave, removeMembers, update } from "../../../mod/client/mls_commits.ts";
import {
  credentialOf,
  GROUP_NAME_EXTENSION,
  suiteImplementation,
} from "../../../mod/client/mls_credentials.ts";
import { MlsError, type MlsErrorReason } from "../../../mod/client/mls_error.ts";
import { groupInfo, members } from "../../../mod/client/mls_group.ts";
import { encrypt, processMessage, readHeader } from "../../../mod/client/mls_messages.ts";
import { add, deliver, type TestDevice, TestWorld } from "./mls_fixture.ts";

/** A group of devices named by `names`; the first made it. */
async function groupOf(names: string, world = new TestWorld()): Promise<TestDevice[]> {
  const devices: TestDevice[] = [];
  for (const name of names) {
    const device = await world.device(name);
    if (devices.length === 0) await world.found(device);
    else await add(world, devices[0]!, { joiner: device, others: devices });
    devices.push(device);
  }
  return devices;
}

async function send(from: TestDevice, text: string): Promise<Bytes> {
  const sent = await encrypt(from.group!, utf8(text));
  from.group = sent.group;
  return sent.bytes;
}

async function receive(to: TestDevice, bytes: Uint8Array): Promise<string> {
  const got = await processMessage(to.context, to.group!, bytes);
  assert(got.kind === "application");
  to.group = got.group;
  return utf8Text(got.plaintext);
}

async function refuses(reason: MlsErrorReason, work: () => Promise<unknown>): Promise<void> {
  await assert.rejects(work, (error) => {
    assert(error instanceof MlsError, String(error));
    assert.equal(error.reason, reason, error.message);
    return true;
  });
}

Deno.test("processMessage() tells text, sender and epoch, and readHeader() the group", async () => {
  const [alice, bob] = await groupOf("ab") as [TestDevice, TestDevice];
  const bytes = await send(alice, "hello");
  const info = groupInfo(alice.group!);
  assert.deepEqual(readHeader(bytes), {
    kind: "message",
    groupId: info.id,
    epoch: 1n,
    content: "application",
  });
  const got = await processMessage(bob.context, bob.group!, bytes);
  assert(got.kind === "application");
  assert.equal(utf8Text(got.plaintext), "hello");
  assert.equal(got.epoch, 1n);
  const { accountId, deviceId } = alice.context.identity;
  assert.deepEqual(got.sender, { leafIndex: 0, accountId, deviceId, domain: "" });
  assert.deepEqual(info.creator, { accountId, deviceId, domain: "" });
  assert.equal(groupInfo(bob.group!).name, "friends");
  assert.deepEqual(members(bob.group!), members(alice.group!));
});

Deno.test("processMessage() works with the X-Wing suite", async () => {
  const [alice, bob] = await groupOf("ab", new TestWorld(MLS_SUITE_XWING)) as [TestDevice, TestDevice];
  assert.equal(groupInfo(bob.group!).suite, MLS_SUITE_XWING);
  await deliver(bob, await update(bob.context, bob.group!), [alice]);
  assert.equal(await receive(alice, await send(bob, "later than quantum")), "later than quantum");
});

Deno.test("processMessage() reads messages in any order, and none twice", async () => {
  const [alice, bob] = await groupOf("ab") as [TestDevice, TestDevice];
  const sent: Bytes[] = [];
  for (let number = 0; number < 10; number++) sent.push(await send(alice, String(number)));
  for (const number of [3, 9, 0, 5, 1]) assert.equal(await receive(bob, sent[number]!), String(number));
  await refuses("replayed", () => processMessage(bob.context, bob.group!, sent[3]!));
  await refuses("replayed", () => processMessage(bob.context, bob.group!, sent[9]!));
  assert.equal(await receive(bob, sent[8]!), "8");
});

Deno.test("processMessage() reads on after hundreds of lost messages of one sender", async () => {
  const [alice, bob] = await groupOf("ab") as [TestDevice, TestDevice];
  for (let number = 0; number < 400; number++) await send(alice, "lost");
  assert.equal(await receive(bob, await send(alice, "found")), "found");
});

Deno.test("processMessage() reads what was sent before a commit after it, up to four epochs back", async () => {
  const [alice, bob] = await groupOf("ab") as [TestDevice, TestDevice];
  const late = [await send(bob, "0"), await send(bob, "1")];
  for (let epoch = 0; epoch < 4; epoch++) {
    await deliver(alice, await update(alice.context, alice.group!), [bob]);
  }
  assert.equal(await receive(alice, late[0]!), "0");
  await deliver(alice, await update(alice.context, alice.group!), [bob]);
  await refuses("epochTooOld", () => processMessage(alice.context, alice.group!, late[1]!));
});

Deno.test("processMessage() refuses own, foreign, future and changed messages, and the group stays usable", async () => {
  const [alice, bob] = await groupOf("ab") as [TestDevice, TestDevice];
  const [carol, dave] = await groupOf("cd") as [TestDevice, TestDevice];
  const bytes = await send(alice, "hello");
  await refuses("own", () => processMessage(alice.context, alice.group!, bytes));
  await refuses("wrongGroup", () => processMessage(dave.context, dave.group!, bytes));
  await refuses("malformed", () => processMessage(bob.context, bob.group!, bytes.slice(0, -1)));
  await refuses("malformed", () => processMessage(bob.context, bob.group!, randomBytes(40)));
  for (const back of [1, 20, 100, 300]) {
    const changed = bytes.with(bytes.length - back, bytes.at(-back)! ^ 1);
    await refuses("invalid", () => processMessage(bob.context, bob.group!, changed));
  }
  const { group } = await update(alice.context, alice.group!);
  const future = await encrypt(group, utf8("x"));
  await refuses("futureEpoch", () => processMessage(bob.context, bob.group!, future.bytes));
  assert.equal(await receive(bob, bytes), "hello");
  assert.equal(await receive(dave, await send(carol, "apart")), "apart");
});

Deno.test("readHeader() and processMessage() never throw anything but MlsError", async () => {
  const [alice, bob] = await groupOf("ab") as [TestDevice, TestDevice];
  const whole = await send(alice, "hello");
  for (let length = 0; length < whole.length; length += 3) {
    assert.throws(() => readHeader(whole.subarray(0, length)), MlsError);
    await assert.rejects(() => processMessage(bob.context, bob.group!, whole.subarray(0, length)), MlsError);
  }
  for (let index = 0; index < 60; index++) {
    const changed = whole.with(index, whole[index]! ^ 0xff);
    await assert.rejects(() => processMessage(bob.context, bob.group!, changed), MlsError, `byte ${index}`);
  }
});

Deno.test("encrypt() pads: lengths that differ by a few bytes cannot be told apart", async () => {
  const [alice] = await groupOf("ab") as [TestDevice, TestDevice];
  const sizeOf = async (length: number) => (await encrypt(alice.group!, randomBytes(length))).bytes.length;
  const small = await sizeOf(0);
  for (const length of [1, 63, 64, 150, 188]) assert.equal(await sizeOf(length), small, `length ${length}`);
  assert.equal(await sizeOf(189), small + 256);
  assert.equal(await sizeOf(400), small + 256);
  assert.equal((await sizeOf(20_000) - small) % 256, 2, "apart from the ciphertext's length field");
});

Deno.test("a member asks to leave: the others commit it before they send", async () => {
  const [alice, bob, carol] = await groupOf("abc") as [TestDevice, TestDevice, TestDevice];
  const asked = await proposeLeave(carol.group!);
  carol.group = asked.group;
  for (const device of [alice, bob]) {
    const got = await processMessage(device.context, device.group!, asked.bytes);
    assert(got.kind === "proposal");
    assert.equal(got.leaving, true);
    assert.equal(got.sender.deviceId, carol.context.identity.deviceId);
    device.group = got.group;
    assert.deepEqual(groupInfo(device.group).leaving.map((one) => one.deviceId), [
      carol.context.identity.deviceId,
    ]);
  }
  await refuses("leaving", () => encrypt(carol.group!, utf8("one more thing")));
  await refuses("leaving", () => update(carol.context, carol.group!));
  await refuses("commitFirst", () => encrypt(bob.group!, utf8("too early")));
  const pending = await update(bob.context, bob.group!);
  assert.deepEqual(pending.removed.map((one) => one.deviceId), [carol.context.identity.deviceId]);
  await deliver(bob, pending, [alice, carol]);
  assert.equal(carol.group, undefined);
  assert.equal(members(alice.group!).length, 2);
  assert.equal(await receive(alice, await send(bob, "just us")), "just us");
});

Deno.test("a leave request that a removal commits as well is committed once", async () => {
  const [alice, , carol] = await groupOf("abc") as [TestDevice, TestDevice, TestDevice];
  const got = await processMessage(alice.context, alice.group!, (await proposeLeave(carol.group!)).bytes);
  alice.group = got.group;
  const pending = await removeMembers(alice.context, alice.group, [carol.context.identity.deviceId]);
  assert.equal(pending.removed.length, 1);
});

/** What a member with another program could send. */
async function foreignCommit(from: TestDevice, proposals: Proposal[]): Promise<Bytes> {
  const cipherSuite = await suiteImplementation(groupInfo(from.group!).suite);
  const made = await createCommit({ state: from.group!.state, cipherSuite }, { extraProposals: proposals });
  return copy(encodeMlsMessage(made.commit));
}

Deno.test("processMessage() ignores proposals to remove others, and blocks nobody by them", async () => {
  const [alice, bob] = await groupOf("abc") as [TestDevice, TestDevice];
  const cipherSuite = await suiteImplementation(groupInfo(alice.group!).suite);
  const proposal: Proposal = { proposalType: "remove", remove: { removed: 2 } };
  const { message } = await createProposal(alice.group!.state, false, proposal, cipherSuite);
  const got = await processMessage(bob.context, bob.group!, encodeMlsMessage(message));
  assert(got.kind === "proposal");
  assert.equal(got.leaving, false);
  await encrypt(got.group, utf8("still possible"));
});

Deno.test("processMessage() refuses commits that change the group's extensions or reinitialise it", async () => {
  const [alice, bob] = await groupOf("ab") as [TestDevice, TestDevice];
  const extensions = [{ extensionType: GROUP_NAME_EXTENSION, extensionData: randomBytes(40) }];
  const renamed: Proposal = {
    proposalType: "group_context_extensions",
    groupContextExtensions: { extensions },
  };
  const commit = await foreignCommit(alice, [renamed]);
  await refuses("invalid", () => processMessage(bob.context, bob.group!, commit));
  const reinit: Proposal = {
    proposalType: "reinit",
    reinit: {
      groupId: randomBytes(16),
      version: "mls10",
      cipherSuite: "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519",
      extensions: [],
    },
  };
  const ending = await foreignCommit(alice, [reinit]);
  await refuses("invalid", () => processMessage(bob.context, bob.group!, ending));
});

Deno.test("processMessage() refuses a commit by which a device turns into another", async () => {
  const [alice, bob] = await groupOf("ab") as [TestDevice, TestDevice];
  const { identity } = alice.context;
  const state = alice.group!.state;
  const own = state.ratchetTree[0];
  assert(own?.nodeType === "leaf");
  const disguise = credentialOf({ ...identity, deviceId: randomId<DeviceId>() });
  const ratchetTree = state.ratchetTree.with(0, { ...own, leaf: { ...own.leaf, credential: disguise } });
  const commit = await foreignCommit({ ...alice, group: { state: { ...state, ratchetTree } } }, []);
  const gullible = { ...bob.context, isTrusted: () => Promise.resolve(true) };
  await assert.rejects(
    () => processMessage(gullible, bob.group!, commit),
    /turns leaf 0 into another device/,
  );
});

Deno.test("readHeader() names the KeyPackages of a Welcome", async () => {
  const world = new TestWorld();
  const [alice] = await groupOf("a", world) as [TestDevice];
  const own = await world.keyPackage(await world.device("b"));
  const { welcome } = await addMembers(alice.context, alice.group!, [own.publicBytes]);
  assert.deepEqual(readHeader(welcome!), { kind: "welcome", keyPackageRefs: [own.ref] });
});
