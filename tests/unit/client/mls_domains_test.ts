/** Domains in credentials, leaves and groups. */
import assert from "node:assert/strict";
import { utf8 } from "../../../mod/base/bytes.ts";
import {
  addMembers,
  changeMembers,
  DomainMissingError,
  lacksDomain,
  update,
} from "../../../mod/client/mls_commits.ts";
import { credentialOf, decodeIdentity, encodeIdentity } from "../../../mod/client/mls_credentials.ts";
import { MlsError } from "../../../mod/client/mls_error.ts";
import { groupInfo, members } from "../../../mod/client/mls_group.ts";
import { processMessage } from "../../../mod/client/mls_messages.ts";
import { joinGroup } from "../../../mod/client/mls_welcome.ts";
import { add, deliver, type TestDevice, TestWorld } from "./mls_fixture.ts";

/** The same device, on a server that has got another domain. */
function moved(device: TestDevice, domain: string): void {
  const { context } = device;
  Object.assign(device, { context: { ...context, identity: { ...context.identity, domain } } });
}

const domains = (device: TestDevice) => members(device.group!).map((member) => member.domain);

Deno.test("decodeIdentity() reads what encodeIdentity() writes, with a domain and without", async () => {
  const { identity } = (await new TestWorld().device("a", "a.test")).context;
  const { accountId, deviceId } = identity;
  assert.deepEqual(decodeIdentity(credentialOf(identity)), { accountId, deviceId, domain: "a.test" });
  const without = { ...identity, domain: "" };
  assert.equal(encodeIdentity(without).length, 32);
  assert.deepEqual(decodeIdentity(credentialOf(without)), { accountId, deviceId, domain: "" });
});

Deno.test("decodeIdentity() refuses a domain that is not in its normal form", async () => {
  const { identity } = (await new TestWorld().device("a")).context;
  for (const domain of ["A.test", "a..test", "a.test.", "a_b", "b\u00fccher.example", "x".repeat(254)]) {
    const bytes = new Uint8Array([...encodeIdentity(identity), ...utf8(domain)]);
    assert.equal(decodeIdentity({ credentialType: "basic", identity: bytes }), undefined, domain);
  }
});

Deno.test("a group keeps its creator's domain, and is read as before without one", async () => {
  const world = new TestWorld();
  for (const domain of ["a.test", ""]) {
    const [alice, bob] = [await world.device("a", domain), await world.device("b", domain)];
    await world.found(alice);
    await add(world, alice, { joiner: bob, others: [] });
    const info = groupInfo(bob.group!);
    assert.deepEqual([info.name, info.creator.domain], ["friends", domain]);
    assert.equal(info.creator.deviceId, alice.context.identity.deviceId);
  }
});

Deno.test("an update gives a leaf the domain that it lacks, and old messages stay readable", async () => {
  const world = new TestWorld();
  const [alice, bob] = [await world.device("a"), await world.device("b")];
  await world.found(alice);
  await add(world, alice, { joiner: bob, others: [] });
  moved(alice, "a.test");
  assert.ok(lacksDomain(alice.context, alice.group!));
  const pending = await update(alice.context, alice.group!);
  const seen = await processMessage(bob.context, bob.group!, pending.commit);
  assert.ok(seen.kind === "commit" && seen.gotDomain && seen.added.length + seen.removed.length === 0);
  await deliver(alice, pending, [bob]);
  assert.deepEqual(domains(bob), ["a.test", ""]);
  assert.ok(!lacksDomain(alice.context, alice.group!));
});

Deno.test("processMessage() refuses a leaf that goes from one domain to another", async () => {
  const world = new TestWorld();
  const [alice, bob] = [await world.device("a", "a.test"), await world.device("b", "a.test")];
  await world.found(alice);
  await add(world, alice, { joiner: bob, others: [] });
  const node = alice.group!.state.ratchetTree[0]!;
  assert.ok(node.nodeType === "leaf");
  const forged = { ...alice.context.identity, domain: "c.test" };
  const leaf = { ...node.leaf, credential: credentialOf(forged) };
  const ratchetTree = alice.group!.state.ratchetTree.with(0, { nodeType: "leaf", leaf });
  const pending = await update(alice.context, { state: { ...alice.group!.state, ratchetTree } });
  await assert.rejects(
    processMessage(bob.context, bob.group!, pending.commit),
    (error) => error instanceof MlsError && error.reason === "invalid",
  );
});

Deno.test("nobody of another server is added before all leaves name a domain; the Welcome names the hub", async () => {
  const world = new TestWorld();
  const [alice, bob] = [await world.device("a"), await world.device("b")];
  await world.found(alice);
  await add(world, alice, { joiner: bob, others: [] });
  for (const device of [alice, bob]) moved(device, "a.test");
  await deliver(alice, await update(alice.context, alice.group!), [bob]);
  const carol = await world.device("c", "c.test");
  const own = await world.keyPackage(carol);
  await assert.rejects(
    addMembers(alice.context, alice.group!, [own.publicBytes]),
    (error) =>
      error instanceof DomainMissingError && error.devices.length === 1 &&
      error.devices[0]!.deviceId === bob.context.identity.deviceId,
  );
  await deliver(bob, await update(bob.context, bob.group!), [alice]);
  const changes = { add: [own.publicBytes], hub: "a.test" };
  const pending = await changeMembers(alice.context, alice.group!, changes);
  await deliver(alice, pending, [bob]);
  const joined = await joinGroup(carol.context, pending.welcome!, () => own);
  assert.equal(joined.hub, "a.test");
  assert.deepEqual(members(joined.group).map((member) => member.domain), ["a.test", "a.test", "c.test"]);
});
