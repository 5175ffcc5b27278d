/** Devices for the MLS tests: each trusts exactly the devices made here, by their real keys. */
import { systemClock } from "../../../mod/base/clock.ts";
import { type AccountId, type DeviceId, type GroupId, randomId } from "../../../mod/base/ids.ts";
import { MLS_SUITE_X25519, type MlsSuite } from "../../../mod/base/mls_suites.ts";
import { generateKeyPair } from "../../../mod/client/account_keys.ts";
import { addMembers, adoptCommit, type PendingCommit } from "../../../mod/client/mls_commits.ts";
import type { MlsContext } from "../../../mod/client/mls_credentials.ts";
import { createGroup, type MlsGroup } from "../../../mod/client/mls_group.ts";
import { createKeyPackages } from "../../../mod/client/mls_key_packages.ts";
import { processMessage } from "../../../mod/client/mls_messages.ts";
import { joinGroup } from "../../../mod/client/mls_welcome.ts";

/** A device, and the group as it sees it. */
export interface TestDevice {
  readonly name: string;
  readonly context: MlsContext;
  group?: MlsGroup;
}

/** Makes devices that know each other. */
export class TestWorld {
  readonly #keys = new Map<DeviceId, string>();
  readonly suite: MlsSuite;

  constructor(suite: MlsSuite = MLS_SUITE_X25519) {
    this.suite = suite;
  }

  async device(name: string, domain = ""): Promise<TestDevice> {
    const key = await generateKeyPair();
    const identity = { accountId: randomId<AccountId>(), deviceId: randomId<DeviceId>(), domain, key };
    this.#keys.set(identity.deviceId, key.publicKey.toHex());
    const isTrusted = async (leaf: { deviceId: DeviceId; signatureKey: Uint8Array }) =>
      this.#keys.get(leaf.deviceId) === leaf.signatureKey.toHex();
    return { name, context: { identity, isTrusted, clock: systemClock } };
  }

  /** The devices forget this one: its signature no longer counts. */
  distrust(device: TestDevice): void {
    this.#keys.delete(device.context.identity.deviceId);
  }

  async found(device: TestDevice): Promise<MlsGroup> {
    device.group = await createGroup(device.context, {
      groupId: randomId<GroupId>(),
      name: "friends",
      suite: this.suite,
    });
    return device.group;
  }

  /** A KeyPackage as the server would hand it out, and its private part. */
  async keyPackage(device: TestDevice) {
    const [made] = await createKeyPackages(device.context, { count: 1, suite: this.suite });
    return made!;
  }
}

/** The committer adopts its commit, and all `others` who are members process it. */
export async function deliver(committer: TestDevice, pending: PendingCommit, others: readonly TestDevice[]) {
  committer.group = adoptCommit(committer.group!, pending.group);
  for (const other of others) {
    if (other === committer || !other.group) continue;
    if (!pending.recipients.includes(other.context.identity.deviceId)) continue;
    const processed = await processMessage(other.context, other.group, pending.commit);
    if (processed.kind === "commit" && processed.selfRemoved) delete other.group;
    else other.group = processed.group;
  }
}

/** Adds `joiner` by a commit of `committer`; everybody follows. */
export async function add(
  world: TestWorld,
  committer: TestDevice,
  options: { joiner: TestDevice; others: readonly TestDevice[] },
): Promise<void> {
  const { joiner, others } = options;
  const own = await world.keyPackage(joiner);
  const pending = await addMembers(committer.context, committer.group!, [own.publicBytes]);
  await deliver(committer, pending, others);
  const joined = await joinGroup(
    joiner.context,
    pending.welcome!,
    (ref) => ref === own.ref ? own : undefined,
  );
  joiner.group = joined.group;
}
