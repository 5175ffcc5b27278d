/** Contract of AccountStore. */
import assert from "node:assert/strict";
import { randomBytes } from "../../../mod/base/bytes.ts";
import { type AccountId, type BlobHash, randomId } from "../../../mod/base/ids.ts";
import { type ContractTest, DAY_MS, HOUR_MS, newCredential, plain, type World } from "./world.ts";

function invitation(
  world: World,
  fields: { createdBy?: AccountId; forAccount?: AccountId; maxOpen?: number } = {},
) {
  return {
    sha256: randomBytes(32),
    createdBy: null,
    forAccount: null,
    expiresAt: world.now + HOUR_MS,
    maxOpen: 10,
    now: world.now,
    ...fields,
  };
}

/** Registers the tests. */
export function accountContract(test: ContractTest): void {
  test("createAccount() stores what findAccount and findAccountByName give", async (world) => {
    const account = world.newAccount();
    const created = await world.store.createAccount(account);
    assert.deepEqual(created, { status: "created", accountId: account.accountId });
    const { invitationSha256: _, now, ...fields } = account;
    const expected = { ...fields, createdAt: now, enabled: true };
    assert.deepEqual(plain(await world.store.findAccount(account.accountId)), expected);
    assert.deepEqual(plain(await world.store.findAccountByName(account.userName)), expected);
  });

  test("findAccount() and findAccountByName() give null for the unknown", async (world) => {
    assert.equal(await world.store.findAccount(randomId()), null);
    assert.equal(await world.store.findAccountByName("nobody"), null);
  });

  test("createAccount() refuses a taken name and changes nothing", async (world) => {
    const first = await world.person();
    const second = world.newAccount({ userName: first.userName });
    assert.deepEqual(await world.store.createAccount(second), { status: "nameTaken" });
    assert.equal(await world.store.findAccount(second.accountId), null);
    assert.equal((await world.store.findAccountByName(first.userName))?.accountId, first.accountId);
  });

  test("createAccount() gives a name to one of many at once", async (world) => {
    const rivals = Array.from({ length: 20 }, () => world.newAccount({ userName: "wanted" }));
    const results = await Promise.all(rivals.map((rival) => world.store.createAccount(rival)));
    const winners = rivals.filter((_, index) => results[index]!.status === "created");
    assert.equal(winners.length, 1);
    assert.equal((await world.store.findAccountByName("wanted"))?.accountId, winners[0]!.accountId);
  });

  test("createAccount() uses an invitation up", async (world) => {
    const invited = invitation(world);
    assert.equal(await world.store.createInvitation(invited), true);
    assert.equal(await world.store.hasInvitation(invited.sha256, world.now), true);
    const invitationSha256 = invited.sha256;
    assert.equal((await world.store.createAccount(world.newAccount({ invitationSha256 }))).status, "created");
    assert.equal(await world.store.hasInvitation(invited.sha256, world.now), false);
    const again = world.newAccount({ invitationSha256 });
    assert.deepEqual(await world.store.createAccount(again), { status: "invitationInvalid" });
    assert.equal(await world.store.findAccount(again.accountId), null);
  });

  test("createAccount() lets one of many at once use an invitation", async (world) => {
    const invited = invitation(world);
    await world.store.createInvitation(invited);
    const results = await Promise.all(
      Array.from({ length: 10 }, () => {
        return world.store.createAccount(world.newAccount({ invitationSha256: invited.sha256 }));
      }),
    );
    assert.equal(results.filter((result) => result.status === "created").length, 1);
    assert.equal(results.filter((result) => result.status === "invitationInvalid").length, 9);
  });

  test("createAccount() keeps the invitation when the name is taken", async (world) => {
    const taken = await world.person();
    const invited = invitation(world);
    await world.store.createInvitation(invited);
    const account = world.newAccount({ userName: taken.userName, invitationSha256: invited.sha256 });
    assert.equal((await world.store.createAccount(account)).status, "nameTaken");
    assert.equal(await world.store.hasInvitation(invited.sha256, world.now), true);
  });

  test("createAccount() refuses unknown and expired invitations", async (world) => {
    const unknown = world.newAccount({ invitationSha256: randomBytes(32) });
    assert.deepEqual(await world.store.createAccount(unknown), { status: "invitationInvalid" });
    const invited = invitation(world);
    await world.store.createInvitation(invited);
    world.now += 2 * HOUR_MS;
    assert.equal(await world.store.hasInvitation(invited.sha256, world.now), false);
    const late = world.newAccount({ invitationSha256: invited.sha256 });
    assert.deepEqual(await world.store.createAccount(late), { status: "invitationInvalid" });
  });

  test("createAccount() with a reset renews the account and drops its devices", async (world) => {
    const person = await world.person();
    const sender = await world.person();
    await world.send(sender, [person]);
    const invited = invitation(world, { forAccount: person.accountId });
    assert.equal(await world.store.createInvitation(invited), true);
    const renewed = world.newAccount({ userName: person.userName, invitationSha256: invited.sha256 });
    const result = await world.store.createAccount(renewed);
    assert.deepEqual(result, { status: "created", accountId: person.accountId });
    const account = plain(await world.store.findAccount(person.accountId));
    assert.deepEqual(account?.credential, renewed.credential);
    assert.deepEqual(account?.accountKey, renewed.accountKey);
    assert.deepEqual(await world.store.listDevices(person.accountId), []);
    assert.equal(await world.store.cursor(person.deviceId), null);
    assert.equal(await world.store.findSession(person.sessionId), null);
    assert.equal(await world.store.hasInvitation(invited.sha256, world.now), false);
    assert.equal((await world.store.counts()).queueEntries, 0);
  });

  test("createAccount() refuses a reset under another name and keeps it", async (world) => {
    const person = await world.person();
    const invited = invitation(world, { forAccount: person.accountId });
    await world.store.createInvitation(invited);
    const renewed = world.newAccount({ invitationSha256: invited.sha256 });
    assert.deepEqual(await world.store.createAccount(renewed), { status: "invitationInvalid" });
    assert.equal(await world.store.hasInvitation(invited.sha256, world.now), true);
    assert.equal((await world.store.listDevices(person.accountId)).length, 1);
  });

  test("createInvitation() stops at maxOpen for each creator; used and expired ones do not count", async (world) => {
    const { accountId } = await world.person();
    const own = () => invitation(world, { createdBy: accountId, maxOpen: 2 });
    const first = own();
    assert.equal(await world.store.createInvitation(first), true);
    assert.equal(await world.store.createInvitation(own()), true);
    assert.equal(await world.store.createInvitation(own()), false);
    assert.equal(await world.store.createInvitation(invitation(world, { maxOpen: 1 })), true);
    await world.store.createAccount(world.newAccount({ invitationSha256: first.sha256 }));
    assert.equal(await world.store.createInvitation(own()), true);
    world.now += 2 * HOUR_MS;
    assert.equal(await world.store.createInvitation(own()), true);
  });

  test("changeCredential() replaces the credential and ends the other sessions", async (world) => {
    const person = await world.person();
    const other = await world.device(person);
    const credential = newCredential({ setupId: 2 });
    const change = { accountId: person.accountId, credential, keepSession: person.sessionId };
    assert.equal(await world.store.changeCredential(change), true);
    assert.deepEqual(plain(await world.store.findAccount(person.accountId))?.credential, credential);
    assert.equal((await world.store.findSession(person.sessionId))?.ended, false);
    assert.equal((await world.store.findSession(other.sessionId))?.ended, true);
  });

  test("changeCredential() ends every session when none is kept, and none of others", async (world) => {
    const person = await world.person();
    const stranger = await world.person();
    const change = { accountId: person.accountId, credential: newCredential(), keepSession: null };
    assert.equal(await world.store.changeCredential(change), true);
    assert.equal((await world.store.findSession(person.sessionId))?.ended, true);
    assert.equal((await world.store.findSession(stranger.sessionId))?.ended, false);
    assert.equal(await world.store.changeCredential({ ...change, accountId: randomId() }), false);
  });

  test("changeCredential() ends no session when all are kept", async (world) => {
    const person = await world.person();
    const other = await world.device(person);
    const credential = newCredential({ setupId: 2 });
    const change = { accountId: person.accountId, credential, keepSession: "all" as const };
    assert.equal(await world.store.changeCredential(change), true);
    assert.deepEqual(plain(await world.store.findAccount(person.accountId))?.credential, credential);
    for (const { sessionId } of [person, other]) {
      assert.equal((await world.store.findSession(sessionId))?.ended, false);
    }
  });

  test("deleteAccount() drops all that the account has and reserves the name", async (world) => {
    const person = await world.signed(await world.person());
    const second = await world.device(person);
    const sender = await world.person();
    await world.send(sender, [person, second]);
    await world.upload(person, world.keyPackages(3));
    await world.store.block(person.accountId, sender.accountId, 10);
    const result = await world.store.deleteAccount(person.accountId, world.now);
    assert.deepEqual(new Set(result?.devices), new Set([person.deviceId, second.deviceId]));
    assert.deepEqual(result?.orphanedBlobs, []);
    assert.equal(await world.store.findAccount(person.accountId), null);
    assert.equal(await world.store.findAccountByName(person.userName), null);
    assert.equal(await world.store.findSession(person.sessionId), null);
    assert.equal(await world.store.cursor(second.deviceId), null);
    assert.deepEqual(await world.claim(person), []);
    assert.deepEqual(await world.store.listBlocks(person.accountId), []);
    const again = world.newAccount({ userName: person.userName });
    assert.deepEqual(await world.store.createAccount(again), { status: "nameTaken" });
    assert.equal(await world.store.deleteAccount(person.accountId, world.now), null);
    const session = world.newSession(person.accountId);
    assert.deepEqual(await world.store.createSession(session), { status: "noAccount" });
  });

  test("deleteAccount() tells which blobs lost their last reference", async (world) => {
    const [person, other] = [await world.person(), await world.person()];
    const put = (hash: BlobHash, owner: AccountId) =>
      world.store.putBlobReference({
        hash,
        owner,
        bytes: 10,
        expiresAt: world.now + DAY_MS,
        quotaBytes: 1000,
        dryRun: false,
        now: world.now,
      });
    const [own, shared] = [randomBytes(32).toHex() as BlobHash, randomBytes(32).toHex() as BlobHash];
    await put(own, person.accountId);
    await put(shared, person.accountId);
    await put(shared, other.accountId);
    const result = await world.store.deleteAccount(person.accountId, world.now);
    assert.deepEqual(result?.orphanedBlobs, [own]);
    assert.equal(await world.store.findBlob(own, world.now), null);
    assert.deepEqual(await world.store.findBlob(shared, world.now), { bytes: 10 });
  });

  test("deleteAccount() leaves what the account has sent", async (world) => {
    const [sender, person] = [await world.person(), await world.person()];
    await world.send(sender, [person]);
    await world.store.deleteAccount(sender.accountId, world.now);
    const [entry] = await world.entries(person);
    assert.equal(entry?.senderAccount, sender.accountId);
    assert.equal(entry?.senderDevice, sender.deviceId);
  });

  test("setAccountEnabled() ends all sessions and keeps everything else", async (world) => {
    const [person, sender] = [await world.person(), await world.person()];
    await world.send(sender, [person]);
    assert.equal(await world.store.setAccountEnabled(person.accountId, false), true);
    assert.equal((await world.store.findAccount(person.accountId))?.enabled, false);
    const session = await world.store.findSession(person.sessionId);
    assert.equal(session?.ended, true);
    assert.equal(session?.accountEnabled, false);
    assert.deepEqual(await world.seqs(person), [1]);
    assert.equal(await world.store.setAccountEnabled(person.accountId, true), true);
    assert.equal((await world.store.findAccount(person.accountId))?.enabled, true);
    assert.equal((await world.store.findSession(person.sessionId))?.ended, true);
    assert.equal(await world.store.setAccountEnabled(randomId(), false), false);
  });

  test("block() keeps an account's messages out until unblock()", async (world) => {
    const [person, nuisance] = [await world.person(), await world.person()];
    assert.deepEqual((await world.send(nuisance, [person])).recipients, ["ok"]);
    assert.equal(await world.store.block(person.accountId, nuisance.accountId, 10), true);
    assert.deepEqual(await world.store.listBlocks(person.accountId), [nuisance.accountId]);
    assert.deepEqual((await world.send(nuisance, [person])).recipients, ["blocked"]);
    assert.deepEqual((await world.send(person, [nuisance])).recipients, ["ok"]);
    await world.store.unblock(person.accountId, nuisance.accountId);
    await world.store.unblock(person.accountId, nuisance.accountId);
    assert.deepEqual(await world.store.listBlocks(person.accountId), []);
    assert.deepEqual((await world.send(nuisance, [person])).recipients, ["ok"]);
    assert.deepEqual(await world.seqs(person), [1, 2]);
  });

  test("block() is idempotent and stops at the maximum", async (world) => {
    const person = await world.person();
    const nuisances = [await world.person(), await world.person(), await world.person()];
    const block = (index: number) => world.store.block(person.accountId, nuisances[index]!.accountId, 2);
    assert.equal(await block(0), true);
    assert.equal(await block(1), true);
    assert.equal(await block(1), true);
    assert.equal(await block(2), false);
    const blocked = await world.store.listBlocks(person.accountId);
    assert.deepEqual(new Set(blocked), new Set([nuisances[0]!.accountId, nuisances[1]!.accountId]));
  });
}
