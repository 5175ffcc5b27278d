/**
 * A symbolic link in the place of a file of the data folder is not written through: the server refuses to start, puts
 * a file of its own there, or does without. Folders of it may lead elsewhere when their operator wants another disk.
 * What root does in a folder that belongs to the server's user must not reach what the user could not.
 */
import assert from "node:assert/strict";
import { join, relative } from "node:path";
import { hex, utf8 } from "../../mod/base/bytes.ts";
import { keepOwner, openPlainFile } from "../../mod/base/files.ts";
import { type AccountId, randomId } from "../../mod/base/ids.ts";
import { copyFolder } from "../support/copy_folder.ts";
import { control } from "../support/steady_clients.ts";
import { tempFolder } from "../support/temp_folder.ts";
import { startTestServer } from "../support/test_server.ts";

const UNIX = { ignore: Deno.build.os === "windows" };
const VICTIM = "what belongs to somebody else";

/** Starts a server on `dataDir` and has it write everything that it writes by itself or for an operator. */
async function use(dataDir: string, options: { backend: string; userName: string }): Promise<void> {
  await using server = await startTestServer({ dataDir, flags: { "store-backend": options.backend } });
  const { store } = server.server.context;
  const accountId = randomId<AccountId>();
  const credential = {
    suiteId: 1,
    setupId: 1,
    record: new Uint8Array(192),
    wrappedAccountKey: utf8("wrapped"),
  };
  const account = { accountId, userName: options.userName, credential, accountKey: new Uint8Array(32) };
  await store.createAccount({ ...account, invitationSha256: null, now: Date.now() });
  await store.setAccountEnabled(accountId, false);
  const answers = [control(dataDir, "user invite"), control(dataDir, "rotate tls", { immediate: true })];
  await Promise.allSettled(answers);
}

async function* filesBelow(folder: string, root = folder): AsyncGenerator<string> {
  for await (const { name, isDirectory, isFile } of Deno.readDir(folder)) {
    const path = join(folder, name);
    if (isFile) yield relative(root, path);
    if (isDirectory) yield* filesBelow(path, root);
  }
}

for (const backend of ["sqlcipher", "file"]) {
  Deno.test({
    ...UNIX,
    name: `a link in the place of any file of the data folder is not written through (${backend})`,
    async fn() {
      await using folder = await tempFolder();
      const model = join(folder.path, "model");
      await Deno.mkdir(model);
      await use(model, { backend, userName: "alice" });
      const files = (await Array.fromAsync(filesBelow(model))).sort();
      const expected = ["audit.log", "lock", "revocations.log", "secrets/db-key", "tls/ca.key"];
      assert.deepEqual(expected.filter((path) => !files.includes(path)), [], `${files}`);
      const written: string[] = [];
      for (const [n, path] of files.entries()) {
        const [dataDir, victim, nothing] = ["data", "victim", "nothing"].map((name) =>
          join(folder.path, `${n}-${name}`)
        );
        for (const target of [victim!, nothing!]) {
          await Deno.mkdir(dataDir!);
          await copyFolder(model, dataDir!);
          await Deno.remove(join(dataDir!, path));
          await Deno.writeTextFile(victim!, VICTIM, { mode: 0o600 });
          await Deno.symlink(target, join(dataDir!, path));
          await use(dataDir!, { backend, userName: "bob" }).catch(() => {});
          const made = await Deno.lstat(nothing!).then(() => true, () => false);
          if (made || await Deno.readTextFile(victim!) !== VICTIM) written.push(`${path} to ${target}`);
          await Deno.remove(dataDir!, { recursive: true });
        }
      }
      assert.deepEqual(written, []);
    },
  });
}

Deno.test("openPlainFile() refuses links, also to nothing, and opens what is a file", UNIX, async () => {
  await using folder = await tempFolder();
  const [file, link, dangling] = ["file", "link", "dangling"].map((name) => join(folder.path, name));
  const options = { write: true, create: true, append: true, mode: 0o600 };
  (await openPlainFile(file!, options)).close();
  await Deno.symlink(file!, link!);
  await Deno.symlink(join(folder.path, "nothing"), dangling!);
  for (const path of [link!, dangling!]) {
    await assert.rejects(openPlainFile(path, options), /symbolic link/);
  }
  assert.deepEqual([...Deno.readDirSync(folder.path)].map(({ name }) => name).sort(), [
    "dangling",
    "file",
    "link",
  ]);
});

Deno.test("keepOwner() gives away a link, never what it leads to", {
  ignore: Deno.build.os === "windows" || Deno.uid() !== 0,
}, async () => {
  await using folder = await tempFolder();
  const [target, theirs] = [join(folder.path, "target"), join(folder.path, "theirs")];
  await Deno.writeTextFile(target, hex(utf8(VICTIM)));
  await Deno.mkdir(theirs);
  await Deno.chown(theirs, 65_534, 65_534);
  await Deno.symlink(target, join(theirs, "link"));
  await keepOwner(join(theirs, "link"));
  assert.equal((await Deno.stat(target)).uid, 0);
  assert.equal((await Deno.lstat(join(theirs, "link"))).uid, 65_534);
});
