/** Contract of QueueStore: commit guards. */
import assert from "node:assert/strict";
import { randomBytes } from "../../../mod/base/bytes.ts";
import type { GroupId } from "../../../mod/base/ids.ts";
import type { CommitGuard, NewMessage } from "../../../mod/store/store.ts";
import { type ContractTest, DAY_MS, type Person, WIDE_LIMITS, type World } from "./world.ts";

/** A group as its members know it: its epoch and the hash of each epoch's token. */
class Group {
  readonly groupId = randomBytes(20).toHex() as GroupId;
  readonly tokens = Array.from({ length: 10 }, () => randomBytes(32));

  guard(epoch: number, fields: Partial<CommitGuard> = {}): CommitGuard {
    const tokenSha256 = this.tokens[epoch]!;
    return { groupId: this.groupId, epoch, tokenSha256, nextTokenSha256: this.tokens[epoch + 1]!, ...fields };
  }

  commit(world: World, people: { sender: Person; to: Person }, guard: CommitGuard | null): NewMessage {
    return world.message(people.sender, [people.to], { commitsTo: [this.groupId], guard });
  }
}

/** Registers the tests. */
export function guardContract(test: ContractTest): void {
  test("the first guard of a group sets it, and each commit moves it by one epoch", async (world) => {
    const people = { sender: await world.person(), to: await world.person() };
    const group = new Group();
    for (const epoch of [3, 4, 5]) {
      const result = await world.store.enqueue(group.commit(world, people, group.guard(epoch)));
      assert.equal(result.status, "accepted");
    }
    assert.deepEqual(await world.seqs(people.to), [1, 2, 3]);
  });

  test("the first commit of an epoch wins, the others get wrongEpoch with the current one", async (world) => {
    const people = { sender: await world.person(), to: await world.person() };
    const group = new Group();
    await world.store.enqueue(group.commit(world, people, group.guard(0)));
    const rivals = Array.from({ length: 5 }, () => group.commit(world, people, group.guard(1)));
    const results = await Promise.all(rivals.map((rival) => world.store.enqueue(rival)));
    assert.equal(results.filter((result) => result.status === "accepted").length, 1);
    const lost = results.filter((result) => result.status !== "accepted");
    assert.deepEqual(lost, Array(4).fill({ status: "wrongEpoch", currentEpoch: 2 }));
    assert.deepEqual(await world.seqs(people.to), [1, 2]);
  });

  test("a guard with the wrong token or a later epoch is refused and moves nothing", async (world) => {
    const people = { sender: await world.person(), to: await world.person() };
    const group = new Group();
    await world.store.enqueue(group.commit(world, people, group.guard(0)));
    const forged = group.guard(1, { tokenSha256: randomBytes(32) });
    const wrongEpoch = { status: "wrongEpoch", currentEpoch: 1 };
    assert.deepEqual(await world.store.enqueue(group.commit(world, people, forged)), wrongEpoch);
    assert.deepEqual(await world.store.enqueue(group.commit(world, people, group.guard(2))), wrongEpoch);
    const right = await world.store.enqueue(group.commit(world, people, group.guard(1)));
    assert.equal(right.status, "accepted");
  });

  test("a commit to a guarded group without its guard is refused; other groups are free", async (world) => {
    const people = { sender: await world.person(), to: await world.person() };
    const [guarded, free] = [new Group(), new Group()];
    assert.equal((await world.store.enqueue(free.commit(world, people, null))).status, "accepted");
    await world.store.enqueue(guarded.commit(world, people, guarded.guard(0)));
    const required = { status: "guardRequired" };
    assert.deepEqual(await world.store.enqueue(guarded.commit(world, people, null)), required);
    const foreign = guarded.commit(world, people, free.guard(0));
    assert.deepEqual(await world.store.enqueue(foreign), required);
    const both = world.message(people.sender, [people.to], {
      commitsTo: [free.groupId, guarded.groupId],
      guard: free.guard(0),
    });
    assert.deepEqual(await world.store.enqueue(both), required);
    assert.equal((await world.store.enqueue(free.commit(world, people, null))).status, "accepted");
  });

  test("an accepted commit is replayed, although its epoch has passed", async (world) => {
    const people = { sender: await world.person(), to: await world.person() };
    const group = new Group();
    const commit = group.commit(world, people, group.guard(0));
    await world.store.enqueue(commit);
    await world.store.enqueue(group.commit(world, people, group.guard(1)));
    const again = await world.store.enqueue(commit);
    assert.equal(again.status === "accepted" && again.replayed, true);
    const next = await world.store.enqueue(group.commit(world, people, group.guard(2)));
    assert.equal(next.status, "accepted");
  });

  test("a commit that is refused by the quota does not move the guard", async (world) => {
    const people = { sender: await world.person(), to: await world.person() };
    const group = new Group();
    await world.store.enqueue(group.commit(world, people, group.guard(0)));
    const poor = { ...WIDE_LIMITS, senderBytesPerDay: 0 };
    const commit = group.commit(world, people, group.guard(1));
    assert.equal((await world.store.enqueue({ ...commit, limits: poor })).status, "quotaExceeded");
    assert.equal((await world.store.enqueue(commit)).status, "accepted");
  });

  test("a commit moves the guard although a recipient fails", async (world) => {
    const people = { sender: await world.person(), to: await world.person() };
    await world.store.block(people.to.accountId, people.sender.accountId, 1);
    const group = new Group();
    const first = await world.store.enqueue(group.commit(world, people, group.guard(0)));
    assert.deepEqual(first.status === "accepted" && first.recipients, ["blocked"]);
    const second = await world.store.enqueue(group.commit(world, people, group.guard(0)));
    assert.deepEqual(second, { status: "wrongEpoch", currentEpoch: 1 });
  });

  test("an account begins at most guardsPerDay guarded groups in a UTC day", async (world) => {
    const people = { sender: await world.person(), to: await world.person() };
    const limits = { ...WIDE_LIMITS, guardsPerDay: 2 };
    const groups = [new Group(), new Group(), new Group()];
    const begin = (group: Group, epoch: number) => {
      return world.store.enqueue({ ...group.commit(world, people, group.guard(epoch)), limits });
    };
    assert.equal((await begin(groups[0]!, 0)).status, "accepted");
    assert.equal((await begin(groups[1]!, 0)).status, "accepted");
    assert.deepEqual(await begin(groups[2]!, 0), { status: "guardLimit" });
    assert.equal((await begin(groups[0]!, 1)).status, "accepted");
    world.now += DAY_MS;
    assert.equal((await begin(groups[2]!, 0)).status, "accepted");
  });

  test("expireGuards() forgets guards not used since, at most limit", async (world) => {
    const people = { sender: await world.person(), to: await world.person() };
    const groups = [new Group(), new Group(), new Group()];
    for (const group of groups) await world.store.enqueue(group.commit(world, people, group.guard(0)));
    world.now += DAY_MS;
    const used = groups[0]!;
    await world.store.enqueue(used.commit(world, people, used.guard(1)));
    assert.equal(await world.store.expireGuards(world.now, 1), 1);
    assert.equal(await world.store.expireGuards(world.now, 10), 1);
    assert.equal(await world.store.expireGuards(world.now, 10), 0);
    const kept = await world.store.enqueue(used.commit(world, people, used.guard(0)));
    assert.equal(kept.status, "wrongEpoch");
    const forgotten = groups[1]!;
    const again = await world.store.enqueue(forgotten.commit(world, people, forgotten.guard(7)));
    assert.equal(again.status, "accepted");
  });
}
