/** The native binding of engine quiche: needed by that engine only, loaded by that engine only. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { utf8Text } from "../../mod/base/bytes.ts";
import { makeCa } from "../../mod/transport/tls.ts";
import { Program } from "../support/program.ts";
import { tempFolder } from "../support/temp_folder.ts";
import { writeIdentity } from "../support/two_servers.ts";

const BINDING = /\/@matrixai\/quic-[^/]+\/.*\.node$/;

/** `serve` with federation on, in a folder that has a certificate for it. */
async function serve(cwd: string, engine: "deno" | "quiche", runtimeFlags: readonly string[] = []) {
  const dataDir = join(cwd, "data");
  const ca = await makeCa({ commonName: "Federation CA", now: Date.now() });
  await Deno.mkdir(dataDir, { mode: 0o700 });
  await writeIdentity(dataDir, { ca, domain: "a.test" });
  const words = [
    ...["serve", "--listen", "127.0.0.1:0", "--federation-listen", "127.0.0.1:0"],
    ...["--federation-domain", "a.test", "--federation-engine", engine],
  ];
  return new Program(words, { cwd, runtimeFlags });
}

/** Files of the binding that a process has in its memory. */
async function bindingsIn({ pid }: Program): Promise<string[]> {
  // Deno itself reads no file of /proc without all permissions.
  const { stdout } = await new Deno.Command("cat", { args: [`/proc/${pid}/maps`] }).output();
  const maps = utf8Text(stdout);
  const paths = maps.split("\n").map((line) => line.slice(line.indexOf("/"))).filter((it) =>
    BINDING.test(it)
  );
  return [...new Set(paths)];
}

/** The binding, as a server of engine quiche loads it. */
async function bindingOfQuiche(): Promise<string> {
  await using folder = await tempFolder();
  await using program = await serve(folder.path, "quiche");
  await program.logged(/"msg":"listening"/);
  const [path, ...more] = await bindingsIn(program);
  assert.ok(path !== undefined && more.length === 0, "engine quiche has one binding in its memory");
  return path;
}

const ignore = Deno.build.os !== "linux";

Deno.test({
  name: "without its binding engine quiche does not start, and says what is missing and what to do",
  ignore,
  async fn() {
    const denied = [`--deny-ffi=${await bindingOfQuiche()}`];
    await using folder = await tempFolder();
    await using program = await serve(folder.path, "quiche", denied);
    const { code, err } = await program.ended();
    assert.equal(code, 1);
    assert.match(
      err,
      /Engine quiche needs the native binding of npm:@matrixai\/quic for linux .*; install it .*, or use engine deno/,
    );
    assert.doesNotMatch(err, /"msg":"listening"/);
  },
});

Deno.test({
  name: "engine deno federates without the binding, and never loads it where it is",
  ignore,
  async fn() {
    const binding = await bindingOfQuiche();
    for (const runtimeFlags of [[], [`--deny-ffi=${binding}`]]) {
      await using folder = await tempFolder();
      await using program = await serve(folder.path, "deno", runtimeFlags);
      await program.logged(/"msg":"listening for other servers"/);
      await program.logged(/"msg":"listening"/);
      assert.deepEqual(await bindingsIn(program), []);
      program.signal("SIGTERM");
      assert.equal((await program.ended()).code, 0);
    }
  },
});
