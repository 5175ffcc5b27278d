/** Commits: guards, races between committers, removal and what it ends, trust, lifetimes. */
import assert from "node:assert/strict";
import { createCommit, encodeMlsMessage } from "ts-mls";
import { type Bytes, concat, copy, hex, sha256, utf8, utf8Text } from "../../../mod/base/bytes.ts";
import { type DeviceId, type GroupId, randomId } from "../../../mod/base/ids.ts";
import { MLS_SUITE_X25519, MLS_SUITE_XWING } from "../../../mod/base/mls_suites.ts";
import {
  addMembers,
  adoptCommit,
  changeMembers,
  removeMembers,
  update,
} from "../../../mod/client/mls_commits.ts";
import {
  GROUP_NAME_EXTENSION,
  type MlsContext,
  suiteImplementation,
} from "../../../mod/client/mls_credentials.ts";
import { MlsError, type MlsErrorReason } from "../../../mod/client/mls_error.ts";
import { createGroup, epochAuthenticator, groupInfo, members } from "../../../mod/client/mls_group.ts";
import {
  checkKeyPackage,
  createKeyPackages,
  KEY_PACKAGE_LIFETIME_MS,
  parseKeyPackage,
} from "../../../mod/client/mls_key_packages.ts";
import { encrypt, processMessage } from "../../../mod/client/mls_messages.ts";
import { joinGroup } from "../../../mod/client/mls_welcome.ts";
import { add, deliver, type TestDevice, TestWorld } from "./mls_fixture.ts";

const DAY_MS = 86_400_000;

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

const idOfDevice = (device: TestDevice): DeviceId => device.context.identity.deviceId;

async function refuses(reason: MlsErrorReason, work: () => Promise<unknown>): Promise<void> {
  await assert.rejects(work, (error) => {
    assert(error instanceof MlsError, String(error));
    assert.equal(error.reason, reason, error.message);
    return true;
  });
}

function withTime(context: MlsContext, laterMs: number): MlsContext {
  return { ...context, clock: { ...context.clock, now: () => context.clock.now() + laterMs } };
}

async function receive(to: TestDevice, bytes: Bytes): Promise<string> {
  const got = await processMessage(to.context, to.group!, bytes);
  assert(got.kind === "application");
  to.group = got.group;
  return utf8Text(got.plaintext);
}

Deno.test("guards of commits that follow each other form a chain that every member can go on with", async () => {
  const [alice, bob] = await groupOf("ab") as [TestDevice, TestDevice];
  const first = await update(alice.context, alice.group!);
  assert.equal(first.guard.epoch, 1n);
  assert.equal(hex(first.guard.groupId), groupInfo(alice.group!).id);
  assert.equal(first.guard.token.length, 32);
  const rival = await update(bob.context, bob.group!);
  assert.equal(hex(rival.guard.token), hex(first.guard.token), "all members derive the same token");
  await deliver(alice, first, [bob]);
  const second = await update(bob.context, bob.group!);
  assert.equal(second.guard.epoch, 2n);
  assert.equal(hex(await sha256(second.guard.token)), hex(first.guard.nextTokenSha256));
  assert.notEqual(hex(rival.guard.nextTokenSha256), hex(first.guard.nextTokenSha256));
});

Deno.test("the loser of a race follows the winner's commit and makes its own again", async () => {
  const world = new TestWorld();
  const [alice, bob, carol] = await groupOf("abc", world) as [TestDevice, TestDevice, TestDevice];
  const dave = await world.device("d");
  const own = await world.keyPackage(dave);
  await addMembers(bob.context, bob.group!, [own.publicBytes]); // refused by the server: wrongEpoch
  await deliver(alice, await update(alice.context, alice.group!), [bob, carol]);
  const again = await addMembers(bob.context, bob.group!, [own.publicBytes]);
  await deliver(bob, again, [alice, carol]);
  dave.group = (await joinGroup(dave.context, again.welcome!, () => own)).group;
  const views = [alice, bob, carol, dave].map((one) => hex(epochAuthenticator(one.group!)));
  assert.equal(new Set(views).size, 1);
});

Deno.test("adoptCommit() keeps what was received while the commit was on its way", async () => {
  const [alice, bob] = await groupOf("ab") as [TestDevice, TestDevice];
  const sent: Bytes[] = [];
  for (const text of ["first", "second"]) {
    const made = await encrypt(bob.group!, utf8(text));
    bob.group = made.group;
    sent.push(made.bytes);
  }
  const pending = await update(alice.context, alice.group!);
  assert.equal(await receive(alice, sent[0]!), "first");
  await deliver(alice, pending, [bob]);
  await refuses("replayed", () => processMessage(alice.context, alice.group!, sent[0]!));
  assert.equal(await receive(alice, sent[1]!), "second");
  assert.throws(() => adoptCommit(alice.group!, pending.group), MlsError);
});

Deno.test("a commit names its recipients, who comes and who goes", async () => {
  const world = new TestWorld();
  const [alice, bob, carol] = await groupOf("abc", world) as [TestDevice, TestDevice, TestDevice];
  const dave = await world.device("d");
  const own = await world.keyPackage(dave);
  const changes = { add: [own.publicBytes], remove: [idOfDevice(bob)] };
  const pending = await changeMembers(alice.context, alice.group!, changes);
  assert.deepEqual(pending.recipients, [idOfDevice(bob), idOfDevice(carol)]);
  assert.deepEqual(pending.joiners, [idOfDevice(dave)]);
  assert.deepEqual(pending.removed, [{ leafIndex: 1, ...identityOf(bob) }]);
  assert.deepEqual(pending.added, [{ leafIndex: 1, ...identityOf(dave) }], "the leaf is used again");
  const seen = await processMessage(carol.context, carol.group!, pending.commit);
  assert(seen.kind === "commit");
  assert.deepEqual(seen.added, pending.added);
  assert.deepEqual(seen.removed, pending.removed);
  assert.equal(seen.sender.deviceId, idOfDevice(alice));
  assert.equal(seen.epoch, 3n);
});

function identityOf(device: TestDevice) {
  const { accountId, deviceId, domain } = device.context.identity;
  return { accountId, deviceId, domain };
}

Deno.test("a removed member learns of it, can still read what was sent before, and nothing after", async () => {
  const [alice, bob, carol] = await groupOf("abc") as [TestDevice, TestDevice, TestDevice];
  const before = await encrypt(carol.group!, utf8("before"));
  carol.group = before.group;
  const pending = await removeMembers(alice.context, alice.group!, [idOfDevice(bob)]);
  const seen = await processMessage(bob.context, bob.group!, pending.commit);
  assert(seen.kind === "commit");
  assert.equal(seen.selfRemoved, true);
  bob.group = seen.group;
  assert.equal(groupInfo(bob.group).status, "removed");
  assert.equal(await receive(bob, before.bytes), "before");
  await refuses("removed", () => encrypt(bob.group!, utf8("x")));
  await refuses("removed", () => update(bob.context, bob.group!));
  alice.group = adoptCommit(alice.group!, pending.group);
  const after = await encrypt(alice.group, utf8("after"));
  await refuses("futureEpoch", () => processMessage(bob.context, bob.group!, after.bytes));
});

Deno.test("a device that lost its state is removed and added again in one commit", async () => {
  const world = new TestWorld();
  const [alice, bob, carol] = await groupOf("abc", world) as [TestDevice, TestDevice, TestDevice];
  delete bob.group;
  const own = await world.keyPackage(bob);
  await refuses("alreadyMember", () => addMembers(alice.context, alice.group!, [own.publicBytes]));
  const changes = { add: [own.publicBytes], remove: [idOfDevice(bob)] };
  const pending = await changeMembers(alice.context, alice.group!, changes);
  assert.equal(pending.added.length, 1);
  assert.equal(pending.removed.length, 1);
  await deliver(alice, pending, [carol]);
  bob.group = (await joinGroup(bob.context, pending.welcome!, () => own)).group;
  const sent = await encrypt(bob.group, utf8("back"));
  assert.equal(await receive(carol, sent.bytes), "back");
});

Deno.test("removeMembers() refuses whoever is not there, addMembers() the same device twice", async () => {
  const world = new TestWorld();
  const [alice] = await groupOf("a", world) as [TestDevice];
  await refuses("notMember", () => removeMembers(alice.context, alice.group!, [randomId<DeviceId>()]));
  const bob = await world.device("b");
  const packages = [(await world.keyPackage(bob)).publicBytes, (await world.keyPackage(bob)).publicBytes];
  await refuses("alreadyMember", () => addMembers(alice.context, alice.group!, packages));
});

Deno.test("addMembers() refuses devices that are not trusted, and so does everybody else", async () => {
  const world = new TestWorld();
  const [alice, bob] = await groupOf("ab", world) as [TestDevice, TestDevice];
  const mallory = await world.device("m");
  const own = await world.keyPackage(mallory);
  const pending = await addMembers(alice.context, alice.group!, [own.publicBytes]);
  world.distrust(mallory);
  await refuses("untrusted", () => addMembers(alice.context, alice.group!, [own.publicBytes]));
  await refuses("untrusted", () => processMessage(bob.context, bob.group!, pending.commit));
  assert.equal(members(bob.group!).length, 2);
});

Deno.test("joinGroup() refuses a group with a device that is not trusted, and one it has no KeyPackage for", async () => {
  const world = new TestWorld();
  const [alice, bob] = await groupOf("ab", world) as [TestDevice, TestDevice];
  const carol = await world.device("c");
  const own = await world.keyPackage(carol);
  const { welcome, commit } = await addMembers(alice.context, alice.group!, [own.publicBytes]);
  await refuses("noKeyPackage", () => joinGroup(carol.context, welcome!, () => undefined));
  await refuses("malformed", () => joinGroup(carol.context, commit, () => own));
  const other = await world.keyPackage(carol);
  await refuses("invalid", () => joinGroup(carol.context, welcome!, () => other));
  for (const back of [1, 500, 1500]) {
    const changed = copy(welcome!).with(welcome!.length - back, welcome!.at(-back)! ^ 1);
    await refuses("invalid", () => joinGroup(carol.context, changed, () => own));
  }
  world.distrust(bob);
  await refuses("untrusted", () => joinGroup(carol.context, welcome!, () => own));
});

Deno.test("what isTrusted throws reaches the caller as it is: not being able to ask is no verdict", async () => {
  const world = new TestWorld();
  const [alice, bob] = await groupOf("ab", world) as [TestDevice, TestDevice];
  const carol = await world.device("c");
  const own = await world.keyPackage(carol);
  const pending = await addMembers(alice.context, alice.group!, [own.publicBytes]);
  const offline = new TypeError("offline");
  const isTrusted = () => Promise.reject(offline);
  const isOffline = (error: unknown) => error === offline;
  const adding = addMembers({ ...alice.context, isTrusted }, alice.group!, [own.publicBytes]);
  await assert.rejects(adding, isOffline);
  await assert.rejects(processMessage({ ...bob.context, isTrusted }, bob.group!, pending.commit), isOffline);
  await assert.rejects(joinGroup({ ...carol.context, isTrusted }, pending.welcome!, () => own), isOffline);
});

Deno.test("joinGroup() refuses a group without a creator, and one whose name is no text", async () => {
  const world = new TestWorld();
  const [alice] = await groupOf("a", world) as [TestDevice];
  const bob = await world.device("b");
  const own = await world.keyPackage(bob);
  const { state } = alice.group!;
  const creator = state.groupContext.extensions[0]!.extensionData.slice(0, 32);
  for (const extensionData of [creator.slice(1), concat(creator, Uint8Array.of(0xff))]) {
    const extensions = [{ extensionType: GROUP_NAME_EXTENSION, extensionData }];
    const cipherSuite = await suiteImplementation(MLS_SUITE_X25519);
    const proposal = { proposalType: "add" as const, add: { keyPackage: parseKeyPackage(own.publicBytes) } };
    const made = await createCommit(
      { state: { ...state, groupContext: { ...state.groupContext, extensions } }, cipherSuite },
      { extraProposals: [proposal], ratchetTreeExtension: true },
    );
    const welcome = encodeMlsMessage({ version: "mls10", wireformat: "mls_welcome", welcome: made.welcome! });
    await refuses("invalid", () => joinGroup(bob.context, welcome, () => own));
  }
});

Deno.test("joinGroup() names the KeyPackage that was used and who invited", async () => {
  const world = new TestWorld();
  const [alice, bob] = await groupOf("ab", world) as [TestDevice, TestDevice];
  await deliver(bob, await update(bob.context, bob.group!), [alice]);
  const carol = await world.device("c");
  const owns = [await world.keyPackage(carol), await world.keyPackage(carol)];
  const pending = await addMembers(bob.context, bob.group!, [owns[1]!.publicBytes]);
  const find = (ref: string) => owns.find((own) => own.ref === ref);
  const joined = await joinGroup(carol.context, pending.welcome!, find);
  assert.equal(joined.used, owns[1]);
  assert.equal(joined.inviter.deviceId, idOfDevice(bob));
  assert.equal(groupInfo(joined.group).name, "friends");
  assert.equal(groupInfo(joined.group).creator.deviceId, idOfDevice(alice));
});

Deno.test("KeyPackages are valid from an hour ago to 84 days ahead, and refused outside and beyond 90 days", async () => {
  const world = new TestWorld();
  const alice = await world.device("a");
  const bob = await world.device("b");
  const own = await world.keyPackage(bob);
  const check = (laterMs: number) =>
    checkKeyPackage(withTime(alice.context, laterMs), own.publicBytes, { suite: MLS_SUITE_X25519 });
  for (const laterMs of [-3_500_000, 0, KEY_PACKAGE_LIFETIME_MS - 5_000]) {
    assert.equal((await check(laterMs)).deviceId, idOfDevice(bob));
  }
  for (const laterMs of [-3_700_000, KEY_PACKAGE_LIFETIME_MS + 5_000]) {
    await refuses("lifetime", () => check(laterMs));
  }
  const create = () =>
    createKeyPackages(bob.context, { count: 1, suite: MLS_SUITE_X25519, lifetimeMs: 90 * DAY_MS });
  await assert.rejects(create, RangeError);
});

Deno.test("checkKeyPackage() refuses another suite, changed bytes, and a foreign identity", async () => {
  const world = new TestWorld();
  const alice = await world.device("a");
  const bob = await world.device("b");
  const own = await world.keyPackage(bob);
  const check = (bytes: Uint8Array, suite: 1 | 83 = MLS_SUITE_X25519) =>
    checkKeyPackage(alice.context, bytes, { suite });
  await refuses("invalid", () => check(own.publicBytes, MLS_SUITE_XWING));
  for (let length = 0; length < own.publicBytes.length; length += 10) {
    await refuses("malformed", () => check(own.publicBytes.subarray(0, length)));
  }
  for (let index = 4; index < own.publicBytes.length; index += 7) {
    const changed = own.publicBytes.with(index, own.publicBytes[index]! ^ 1);
    await assert.rejects(() => check(changed), MlsError, `byte ${index}`);
  }
  const disguised = { ...bob.context, identity: { ...bob.context.identity, deviceId: idOfDevice(alice) } };
  const [stolen] = await createKeyPackages(disguised, { count: 1, suite: MLS_SUITE_X25519 });
  await assert.rejects(() => check(stolen!.publicBytes), MlsError);
});

Deno.test("createGroup() refuses names and ids that are too long", async () => {
  const alice = await new TestWorld().device("a");
  const create = (name: string, groupId = randomId<GroupId>()) =>
    createGroup(alice.context, { groupId, name, suite: MLS_SUITE_X25519 });
  await assert.rejects(() => create("ü".repeat(129)), RangeError);
  await assert.rejects(() => create("x", "" as GroupId), RangeError);
  assert.equal(groupInfo(await create("ü".repeat(128))).name.length, 128);
});
