/** What is shipped: what would be compiled in, and the container's layout run without a container. */
import assert from "node:assert/strict";
import { billOfMaterials, packagesOf, strangeLicences } from "../../ops/shipping/packages.ts";
import { ContainerRoot } from "../support/container_root.ts";
import { freeUdpPort } from "../support/server_process.ts";

const MAIN = new URL("../../", import.meta.url).pathname;

Deno.test("deno task compile --inspect embeds what it should and nothing else", async () => {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["task", "--quiet", "compile", "--inspect"],
    cwd: MAIN,
  }).output();
  const text = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  assert.equal(code, 0, text);
  assert.match(text, /embedded as it should be/);
});

Deno.test("the bill of materials has every shipped package, locked and with a licence that goes with ours", async () => {
  const packages = await packagesOf();
  const names = packages.map(({ name }) => name);
  for (const shipped of ["@signalapp/sqlcipher", "@serenity-kit/opaque", "ts-mls", "@hpke/common"]) {
    assert.ok(names.includes(shipped), shipped);
  }
  for (const ofTests of ["fast-check", "better-sqlite3-multiple-ciphers"]) {
    assert.ok(!names.includes(ofTests), ofTests);
  }
  assert.deepEqual(strangeLicences(packages), []);
  const other = { ...packages[0]!, licence: "SSPL-1.0" };
  assert.deepEqual(strangeLicences([other, { ...other, licence: "" }]).length, 2);
  const { components, dependencies } = billOfMaterials(packages) as {
    components: { "bom-ref": string; hashes: { content: string }[] }[];
    dependencies: { ref: string; dependsOn: string[] }[];
  };
  const refs = new Set(components.map((component) => component["bom-ref"]));
  assert.equal(refs.size, packages.length);
  assert.ok(components.every(({ hashes }) => /^[0-9a-f]{128}$/.test(hashes[0]!.content)));
  assert.deepEqual(dependencies.flatMap(({ dependsOn }) => dependsOn).filter((ref) => !refs.has(ref)), []);
  const reached = new Set(dependencies.flatMap(({ dependsOn }) => dependsOn));
  assert.equal(reached.size, packages.length, "each is there for somebody");
});

/** What the program asks of the system, and why; there is no `run`, no `import` and no unbounded `sys`. */
const PERMISSIONS: Readonly<Record<string, string>> = {
  net: "clients, metrics and the control socket",
  read: "data folder, configuration, /proc",
  write: "data folder, backups, files that clients save",
  env: "options",
  ffi: "SQLCipher and the UDP buffers",
  sys: "names and addresses for certificates; memory, load and disk for doctor",
};

Deno.test("the program is compiled with the permissions it needs and no others", async () => {
  const { tasks } = JSON.parse(await Deno.readTextFile(`${MAIN}deno.json`));
  const flags = (tasks["qpq"].command as string).match(/--allow-[^ ]+/g)!;
  assert.deepEqual(
    flags.map((flag) => flag.replace("--allow-", "").replace(/=.*/, "")),
    Object.keys(PERMISSIONS),
  );
  assert.match(flags.at(-1)!, /^--allow-sys=[a-zA-Z,]+$/, "sys is listed one by one");
  for (const loose of ["-A", "--allow-all", "--allow-run", "--allow-import", "--no-prompt"]) {
    assert.ok(!tasks["qpq"].command.split(" ").includes(loose), loose);
  }
});

Deno.test("the container's layout runs unprivileged in a read-only root, is healthy, and stops", {
  ignore: Deno.build.os !== "linux" || Deno.uid() !== 0,
}, async () => {
  await using root = await ContainerRoot.build();
  const port = freeUdpPort();
  const server = root.run(["serve", "--listen", `127.0.0.1:${port}`, "--opaque-workers", "1"]).spawn();
  const log = collect(server.stderr);
  const drained = server.stdout.cancel(); // a server goes on when nobody reads its hints
  await log.until(/"msg":"listening"/);
  try {
    const health = await root.run(["health"]).output();
    assert.equal(health.code, 0, new TextDecoder().decode(health.stderr));
    const address = `127.0.0.1:${port}`;
    const token = ["--ca", "/data/tls/ca.pem", "--auth-token-file", "/data/secrets/auth-token"];
    const ping = await root.run(["client", "--server", address, ...token, "--ping"]).output();
    assert.equal(ping.code, 0, new TextDecoder().decode(ping.stderr));
    const { uid } = await Deno.stat(`${root.folder}/data/qpq.db`);
    assert.equal(uid, 65532);
  } finally {
    try {
      server.kill("SIGTERM");
    } catch {
      // It has ended by itself; its log says why.
    }
    const { code } = await server.status;
    await drained;
    assert.equal(code, 0, await log.text());
  }
});

/** What a stream has said, and a wait for what it will say. */
function collect(stream: ReadableStream<Uint8Array>) {
  let text = "";
  let told = () => {};
  const ended = (async () => {
    for await (const part of stream.pipeThrough(new TextDecoderStream())) {
      text += part;
      told();
    }
  })();
  return {
    until: (pattern: RegExp) =>
      new Promise<void>((resolve, reject) => {
        told = () => pattern.test(text) ? resolve() : undefined;
        told();
        ended.then(() => reject(new Error(`It ended before it said ${pattern}:\n${text}`)));
      }),
    text: async () => {
      await ended;
      return text;
    },
  };
}
