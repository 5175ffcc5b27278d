/** Server processes of two domains that know each other, and people who use their client programs. */
import { join } from "node:path";
import { makeCa, makeLeaf } from "../../mod/transport/tls.ts";
import type { ServerCertificate } from "../../mod/transport/transport.ts";
import { ClientWorld } from "./client_world.ts";
import { freeUdpPort } from "./server_process.ts";

/** What `rotate federation` would leave in a data folder. */
export async function writeIdentity(
  dataDir: string,
  identity: { ca: ServerCertificate; domain: string },
): Promise<void> {
  const { ca, domain } = identity;
  const folder = join(dataDir, "tls", "federation", "v1");
  await Deno.mkdir(folder, { recursive: true, mode: 0o700 });
  const { certificatePem, privateKeyPem } = await makeLeaf({
    ca,
    names: [domain],
    now: Date.now(),
    mutual: true,
  });
  await Deno.writeTextFile(join(folder, "cert.pem"), certificatePem);
  await Deno.writeTextFile(join(folder, "key.pem"), privateKeyPem, { mode: 0o600 });
  await Deno.writeTextFile(join(folder, "ca.pem"), ca.certificatePem);
  await Deno.writeTextFile(join(dataDir, "tls", "federation", "current"), "v1\n");
}

/** Servers a.test and b.test, which know each other. */
export async function twoServers(engine: "deno" | "quiche" = "deno"): Promise<[ClientWorld, ClientWorld]> {
  const ca = await makeCa({ commonName: "Federation CA", now: Date.now() });
  const ports = { "a.test": freeUdpPort(), "b.test": freeUdpPort() };
  const start = (domain: keyof typeof ports, peer: keyof typeof ports) =>
    ClientWorld.start([
      ...["--federation-domain", domain, "--federation-listen", `127.0.0.1:${ports[domain]}`],
      ...["--federation-engine", engine],
      ...["--federation-peers", `${peer}=127.0.0.1:${ports[peer]}`],
    ], (dataDir) => writeIdentity(dataDir, { ca, domain }));
  return [await start("a.test", "b.test"), await start("b.test", "a.test")];
}
