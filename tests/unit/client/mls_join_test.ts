/** Joins that the package's own joinGroup gets wrong, official vectors, and 150 rounds of a random history. */
import assert from "node:assert/strict";
import {
  decodeMlsMessage,
  emptyPskIndex,
  getCiphersuiteFromName,
  getCiphersuiteImpl,
  joinGroup as packageJoin,
} from "ts-mls";
import { hex, utf8, utf8Text } from "../../../mod/base/bytes.ts";
import { addMembers, removeMembers, update } from "../../../mod/client/mls_commits.ts";
import { clientConfig } from "../../../mod/client/mls_credentials.ts";
import { decodeGroup, encodeGroup, epochAuthenticator, members } from "../../../mod/client/mls_group.ts";
import { type OwnKeyPackage, parseKeyPackage } from "../../../mod/client/mls_key_packages.ts";
import { encrypt, processMessage } from "../../../mod/client/mls_messages.ts";
import { joinGroup } from "../../../mod/client/mls_welcome.ts";
import { add, deliver, type TestDevice, TestWorld } from "./mls_fixture.ts";

async function exchange(from: TestDevice, to: TestDevice, text: string): Promise<void> {
  const sent = await encrypt(from.group!, utf8(text));
  from.group = sent.group;
  const got = await processMessage(to.context, to.group!, sent.bytes);
  assert(got.kind === "application");
  to.group = got.group;
  assert.equal(utf8Text(got.plaintext), text);
  assert.equal(got.sender.deviceId, from.context.identity.deviceId);
}

function assertAgreed(devices: readonly TestDevice[]): void {
  const views = devices.filter((one) => one.group).map((one) => hex(epochAuthenticator(one.group!)));
  assert.equal(new Set(views).size, 1);
}

Deno.test("joinByWelcome() takes a tree whose unmerged_leaves lists differ, which the package refuses", async () => {
  const world = new TestWorld();
  const first = await world.device("0");
  await world.found(first);
  const all = [first];
  const owns: OwnKeyPackage[] = [];
  for (let index = 1; index < 5; index++) {
    const device = await world.device(String(index));
    all.push(device);
    owns.push(await world.keyPackage(device));
  }
  const founding = await addMembers(first.context, first.group!, owns.map((own) => own.publicBytes));
  await deliver(first, founding, []);
  for (const device of all.slice(1)) {
    const joined = await joinGroup(device.context, founding.welcome!, (ref) => {
      const own = owns[all.indexOf(device) - 1]!;
      return own.ref === ref ? own : undefined;
    });
    device.group = joined.group;
  }
  const gone = [all[1]!, all[2]!].map((device) => device.context.identity.deviceId);
  await deliver(first, await removeMembers(first.context, first.group!, gone), all);
  let refusals = 0;
  for (let index = 0; index < 3; index++) {
    const joiner = await world.device(`new ${index}`);
    const own = await world.keyPackage(joiner);
    const pending = await addMembers(first.context, first.group!, [own.publicBytes]);
    await deliver(first, pending, all);
    const joined = await joinGroup(joiner.context, pending.welcome!, () => own);
    joiner.group = joined.group;
    all.push(joiner);
    refusals += await refusedByPackage(pending.welcome!, { own, joiner });
  }
  assert.equal(refusals, 1, "the package's own join was expected to refuse exactly the third joiner");
  assertAgreed(all);
  const third = all.at(-1)!;
  await exchange(first, third, "welcome");
  await exchange(third, first, "thanks");
  await exchange(third, all[4]!, "hello");
});

async function refusedByPackage(
  bytes: Uint8Array,
  options: { own: Awaited<ReturnType<TestWorld["keyPackage"]>>; joiner: TestDevice },
): Promise<0 | 1> {
  const { own, joiner } = options;
  const message = decodeMlsMessage(bytes, 0)![0];
  assert(message.wireformat === "mls_welcome");
  const keyPackage = parseKeyPackage(own.publicBytes);
  const privateKeys = {
    initPrivateKey: own.initPrivateKey,
    hpkePrivateKey: own.leafPrivateKey,
    signaturePrivateKey: joiner.context.identity.key.privateKey,
  };
  const implementation = await getCiphersuiteImpl(getCiphersuiteFromName(keyPackage.cipherSuite));
  const config = clientConfig(joiner.context);
  try {
    await packageJoin(
      message.welcome,
      keyPackage,
      privateKeys,
      emptyPskIndex,
      implementation,
      undefined,
      undefined,
      config,
    );
    return 0;
  } catch (error) {
    assert.match(String(error), /unmerged_leaves/);
    return 1;
  }
}

/** Mulberry32: small, seeded, the same everywhere. */
function seeded(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

/** As if the device had been restarted. */
function reload(device: TestDevice): void {
  const { base, delta } = encodeGroup(device.group!);
  device.group = decodeGroup(device.context, { base: base.slice(), delta: delta.slice() });
}

Deno.test("150 rounds of adds, removals, updates and restarts leave all members with one epoch authenticator", async () => {
  const world = new TestWorld();
  const random = seeded(20261122);
  const first = await world.device("0");
  await world.found(first);
  let inGroup: TestDevice[] = [first];
  for (let round = 1; round <= 150; round++) {
    const committer = inGroup[random(inGroup.length)]!;
    const dice = random(10);
    if (inGroup.length < 3 || (dice < 5 && inGroup.length < 8)) {
      const joiner = await world.device(String(round));
      await add(world, committer, { joiner, others: inGroup });
      inGroup.push(joiner);
    } else if (dice < 8) {
      const others = inGroup.filter((one) => one !== committer);
      const picks = Array.from({ length: 1 + random(3) }, () => others[random(others.length)]!);
      const leaving = [...new Set(picks)];
      const ids = leaving.map((one) => one.context.identity.deviceId);
      await deliver(committer, await removeMembers(committer.context, committer.group!, ids), inGroup);
      for (const one of leaving) assert.equal(one.group, undefined, `round ${round}: removed member stayed`);
      inGroup = inGroup.filter((one) => !leaving.includes(one));
    } else {
      await deliver(committer, await update(committer.context, committer.group!), inGroup);
    }
    assertAgreed(inGroup);
    reload(inGroup[random(inGroup.length)]!);
    for (const one of inGroup) assert.equal(members(one.group!).length, inGroup.length, `round ${round}`);
  }
  await exchange(inGroup[0]!, inGroup.at(-1)!, "still here");
});
