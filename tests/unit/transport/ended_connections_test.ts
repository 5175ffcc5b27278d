/** What the garbage collector is told of connections that have ended. */
import assert from "node:assert/strict";
import { utf8Text } from "../../../mod/base/bytes.ts";
import { connect, listen } from "../../../mod/transport/deno_quic.ts";
import { testCertificates } from "../../support/certificates.ts";

const MIB = 1024 * 1024;
/** What else comes and goes meanwhile. */
const NOISE = MIB / 2;

function external(): number {
  return Deno.memoryUsage().external;
}

Deno.test("the collector hears of 32 kB for each connection that has ended", async () => {
  const { ca, leaf } = await testCertificates();
  const bounds = { idleTimeoutMs: 10_000, streamsMax: 8, handshakesMax: 64 };
  await using listener = listen({ hostname: "127.0.0.1", port: 0, certificate: leaf, ...bounds });
  const ended = (async () => {
    let count = 0;
    for await (const connection of listener.connections()) {
      await connection.closed;
      if (++count === 64) return;
    }
  })();
  const before = external();
  for (let i = 0; i < 64; i++) {
    const connection = await connect({
      hostname: "127.0.0.1",
      port: listener.address.port,
      identity: { kind: "roots", caPem: ca.certificatePem },
      idleTimeoutMs: 10_000,
    });
    connection.close(0, "");
  }
  await ended;
  assert.ok(external() - before >= 2 * MIB - NOISE, `only ${external() - before} bytes more`);
});

Deno.test("no memory stands behind what the collector hears", async () => {
  // In a process of its own: what is resident here is also that of the tests beside this one.
  const module = new URL("../../../mod/transport/ended_connections.ts", import.meta.url).href;
  const code = `import { weighEndedConnection } from "${module}";
    const before = Deno.memoryUsage();
    for (let i = 0; i < 1024; i++) weighEndedConnection();
    const after = Deno.memoryUsage();
    console.log(after.external - before.external, after.rss - before.rss);`;
  const { stdout } = await new Deno.Command(Deno.execPath(), { args: ["eval", "--no-check", code] }).output();
  const [heard, resident] = utf8Text(stdout).split(" ").map(Number);
  assert.ok(heard! >= 32 * MIB, `${heard} bytes`);
  assert.ok(resident! < 8 * MIB, `${resident} bytes are resident`);
});
