import assert from "node:assert/strict";
import { join } from "node:path";
import {
  finishInstall,
  installNext,
  isOwnLeaf,
  makeMissing,
  managedPaths,
  newLeaf,
  readPair,
  readUsable,
  writeNext,
} from "../../../mod/admin/rotate_tls_files.ts";
import { servesAt } from "../../../mod/admin/rotate_tls_plan.ts";
import { inspectCertificate, LEAF_LIFE_MS } from "../../../mod/transport/tls.ts";
import { testCertificates } from "../../support/certificates.ts";
import { tempFolder } from "../../support/temp_folder.ts";

const DAY_MS = 86_400_000;
const NAMES = ["localhost", "127.0.0.1"];

async function madeFolder() {
  const folder = await tempFolder();
  await Deno.mkdir(join(folder.path, "tls"));
  const now = Date.now();
  const made = await makeMissing(folder.path, { names: NAMES, now });
  return { ...folder, now, made };
}

async function serverPem(dataDir: string): Promise<string> {
  return await Deno.readTextFile(managedPaths(dataDir, "server").certificate);
}

Deno.test("makeMissing() makes a CA and a leaf once, and a new leaf when that has ended", async () => {
  await using folder = await madeFolder();
  assert.equal(folder.made.length, 2);
  const first = await serverPem(folder.path);
  assert.deepEqual(await makeMissing(folder.path, { names: NAMES, now: folder.now }), []);
  const later = folder.now + LEAF_LIFE_MS + DAY_MS;
  assert.equal((await makeMissing(folder.path, { names: NAMES, now: later })).length, 1);
  assert.notEqual(await serverPem(folder.path), first);
  await readUsable(managedPaths(folder.path, "server"), later);
});

Deno.test("installNext() stopped after each of its changes is completed by makeMissing()", async () => {
  for (const stopAfter of ["put the key in place", "put the certificate in place"]) {
    await using folder = await madeFolder();
    const next = await newLeaf(folder.path, { names: NAMES, now: folder.now });
    await writeNext(folder.path, next);
    const stop = async (name: string) => {
      if (name === stopAfter) throw new Error("crash");
    };
    await assert.rejects(installNext(folder.path, stop), /crash/);
    await makeMissing(folder.path, { names: NAMES, now: folder.now });
    assert.deepEqual(await readUsable(managedPaths(folder.path, "server"), folder.now), next);
    await assert.rejects(Deno.lstat(managedPaths(folder.path, "next").certificate), Deno.errors.NotFound);
  }
});

Deno.test("finishInstall() removes a next certificate whose key is another's, and keeps the server's pair", async () => {
  await using folder = await madeFolder();
  const before = await readPair(managedPaths(folder.path, "server"));
  const { leaf } = await testCertificates();
  await Deno.writeTextFile(managedPaths(folder.path, "next").certificate, leaf.certificatePem);
  await finishInstall(folder.path);
  assert.deepEqual(await readPair(managedPaths(folder.path, "server")), before);
  await assert.rejects(Deno.lstat(managedPaths(folder.path, "next").certificate), Deno.errors.NotFound);
});

Deno.test("writeNext() over an announced pair never leaves a mixed one", async () => {
  await using folder = await madeFolder();
  const [first, second] = [
    await newLeaf(folder.path, { names: NAMES, now: folder.now }),
    await newLeaf(folder.path, { names: NAMES, now: folder.now }),
  ];
  await writeNext(folder.path, first);
  const stop = async (name: string) => {
    if (name === "wrote the key") throw new Error("crash");
  };
  await assert.rejects(writeNext(folder.path, second, stop), /crash/);
  await assert.rejects(Deno.lstat(managedPaths(folder.path, "next").certificate), Deno.errors.NotFound);
  await finishInstall(folder.path);
  await readUsable(managedPaths(folder.path, "server"), folder.now);
  await writeNext(folder.path, second);
  assert.deepEqual(await readUsable(managedPaths(folder.path, "next"), folder.now), second);
});

Deno.test("keys have mode 0600", { ignore: Deno.build.os === "windows" }, async () => {
  await using folder = await madeFolder();
  for (const name of ["ca", "server"] as const) {
    assert.equal((await Deno.stat(managedPaths(folder.path, name).key)).mode! & 0o777, 0o600);
  }
});

Deno.test("isOwnLeaf() knows leaves of the managed CA from others", async () => {
  await using folder = await madeFolder();
  const { leaf } = await testCertificates();
  assert.equal(await isOwnLeaf(folder.path, await serverPem(folder.path), folder.now), true);
  assert.equal(await isOwnLeaf(folder.path, leaf.certificatePem, folder.now), false);
});

Deno.test("servesAt() is a week after the next one was made, and at the latest a day before the end", async () => {
  await using folder = await madeFolder();
  const current = inspectCertificate(await serverPem(folder.path));
  const made = async (now: number) =>
    inspectCertificate((await newLeaf(folder.path, { names: NAMES, now })).certificatePem);
  const next = await made(folder.now);
  assert.ok(Math.abs(servesAt(next, current) - folder.now - 7 * DAY_MS) <= 1000);
  const late = await made(current.notAfter - 3 * DAY_MS);
  assert.equal(servesAt(late, current), current.notAfter - DAY_MS);
});
