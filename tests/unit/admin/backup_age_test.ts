/** Backups encrypted to age recipients. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { generateIdentity, identityToRecipient } from "age-encryption";
import { backupCreate } from "../../../mod/admin/backup_operations.ts";
import { decrypterFor, encrypterFor } from "../../../mod/admin/backup_age.ts";
import { listFiles, readChunks } from "../../../mod/admin/backup_files.ts";
import { exists } from "../../../mod/base/files.ts";
import { BACKENDS, BackupWorld, flipBit } from "../../support/backup_world.ts";

async function identity(): Promise<{ secret: string; recipient: string }> {
  const secret = await generateIdentity();
  return { secret: `# created by a test\n${secret}\n`, recipient: await identityToRecipient(secret) };
}

for (const backend of BACKENDS) {
  Deno.test(`${backend}: an encrypted backup opens with any of its identities and no other`, async () => {
    await using world = await BackupWorld.make(backend);
    await world.people();
    const [one, two, other] = [await identity(), await identity(), await identity()];
    const folder = await world.backup({ encryptTo: [one.recipient, two.recipient] });
    for (const { secret } of [one, two]) {
      const { ok, opened } = await world.verify(folder, { identity: secret });
      assert.deepEqual([ok, opened], [true, true]);
    }
    const { ok, problems } = await world.verify(folder, { identity: other.secret });
    assert.deepEqual([ok, problems], [
      false,
      ["The backup is encrypted to other recipients: none of the identities opens it"],
    ]);
    await assert.rejects(world.restore(folder), /is encrypted to age1.*: give --identity FILE/);
    await assert.rejects(
      world.restore(folder, { identity: other.secret }),
      /none of the identities opens it/,
    );
    assert.equal(await exists(world.path("restored")), false);
    assert.equal((await world.restore(folder, { identity: two.secret }))["blobs"], 2);
  });
}

Deno.test("an encrypted backup shows neither store nor blob hashes", async () => {
  await using world = await BackupWorld.make("file");
  const { blobs } = await world.people();
  const { recipient } = await identity();
  const folder = await world.backup({ encryptTo: [recipient] });
  const paths = await listFiles(folder);
  const plain = paths.filter((path) => !path.endsWith(".age"));
  assert.deepEqual(plain, ["blobs.list", "manifest.json", "manifest.mac"]);
  const texts = [...paths, ...await Promise.all(plain.map((path) => Deno.readTextFile(join(folder, path))))];
  for (const hash of blobs) {
    assert.ok(!texts.some((text) => text.includes(hash) || text.includes(hash.slice(2))), hash);
  }
});

Deno.test("without an identity the files of an encrypted backup are checked, and one flipped bit is found", async () => {
  await using world = await BackupWorld.make("file");
  await world.people();
  const { recipient, secret } = await identity();
  const folder = await world.backup({ encryptTo: [recipient] });
  const checked = await world.verify(folder);
  assert.deepEqual([checked["ok"], checked["opened"]], [true, false]);
  for (const path of (await listFiles(folder)).filter((each) => each.endsWith(".age"))) {
    await flipBit(join(folder, path), 250);
    for (const input of [{}, { identity: secret }]) {
      const { ok, problems } = await world.verify(folder, input);
      assert.equal(ok, false);
      assert.match(String(problems), /damaged/);
    }
    await assert.rejects(world.restore(folder, { identity: secret }), /damaged/);
    await flipBit(join(folder, path), 250);
  }
  assert.equal((await world.verify(folder, { identity: secret }))["ok"], true);
});

Deno.test("unchanged blobs of an encrypted backup are links too, to one for the same recipients", async () => {
  await using world = await BackupWorld.make("file");
  await world.people();
  const [one, two] = [await identity(), await identity()];
  const newBytes = async (encryptTo: string[]) =>
    (await world.run(backupCreate, { encryptTo }))["newBytes"] as number;
  assert.ok(await newBytes([one.recipient]) > 300_000);
  assert.ok(await newBytes([one.recipient]) < 100_000);
  assert.ok(await newBytes([one.recipient, two.recipient]) > 300_000);
  const third = await world.run(backupCreate, { encryptTo: [two.recipient, one.recipient] });
  assert.ok((third["newBytes"] as number) < 100_000);
  assert.equal((await world.verify(third["path"] as string, { identity: two.secret }))["ok"], true);
});

Deno.test("recipients come from the configuration unless a backup is to be plain", async () => {
  await using world = await BackupWorld.make("file");
  const { recipient } = await identity();
  const flags = { "backup-encrypt-to": recipient };
  assert.deepEqual((await world.run(backupCreate, {}, { flags }))["encryptedTo"], [recipient]);
  assert.deepEqual((await world.run(backupCreate, { plain: true }, { flags }))["encryptedTo"], []);
});

Deno.test("what is no recipient or no identity is told before anything is made", async () => {
  await using world = await BackupWorld.make("file");
  await assert.rejects(world.backup({ encryptTo: [`age1${"q".repeat(58)}`] }), /is no age recipient/);
  assert.deepEqual(await world.inBackups(), []);
  assert.throws(() => decrypterFor("# nothing\n"), /holds no identity/);
  assert.throws(() => decrypterFor("AGE-SECRET-KEY-1PLANTED\n"), (error: Error) => {
    return /Identity 1 .* is no age identity/.test(error.message) && !error.message.includes("PLANTED");
  });
});

Deno.test("encryption goes through in pieces", async () => {
  const { recipient, secret } = await identity();
  const piece = new Uint8Array(1 << 16);
  let given = 0;
  const source = async function* () {
    for (; given < 64; given++) yield piece;
  };
  const encrypted = encrypterFor([recipient])(source());
  let [bytes, mostAhead] = [0, 0];
  const watched = async function* () {
    for await (const chunk of encrypted) {
      mostAhead = Math.max(mostAhead, given - bytes / piece.length);
      yield chunk;
    }
  };
  for await (const chunk of decrypterFor(secret)(watched())) bytes += chunk.length;
  assert.equal(bytes, 64 * piece.length);
  assert.ok(mostAhead < 16, `${mostAhead} pieces were held at once`);
});

Deno.test("readChunks() gives a file in pieces", async () => {
  await using world = await BackupWorld.make("file");
  await Deno.writeFile(world.path("large"), new Uint8Array(600_000));
  const sizes = (await Array.fromAsync(readChunks(world.path("large")))).map((chunk) => chunk.length);
  assert.ok(sizes.length >= 3);
  assert.equal(sizes.reduce((sum, size) => sum + size), 600_000);
});
