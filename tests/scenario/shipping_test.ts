/** What is shipped: what would be compiled in, and the container's layout run without a container. */
import assert from "node:assert/strict";
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
