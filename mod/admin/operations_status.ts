/** `status`: what the server does at present; of a stopped one, what its folder shows without opening the store. */
import { join } from "node:path";
import { readTextIfThere } from "../base/files.ts";
import { VERSION } from "../base/version.ts";
import type { Settings } from "../config/options.ts";
import { fingerprintText } from "../transport/fingerprint.ts";
import { inspectCertificate } from "../transport/tls.ts";
import type { JsonObject, Operation } from "./operations.ts";

/** Shows version, connections, store, certificate and what is out of the ordinary. */
export const status: Operation = {
  name: "status",
  whenStopped: "reads",
  audited: false,
  async run(context) {
    if (context.server) return await context.server.status();
    const { settings } = context;
    return {
      running: false,
      version: VERSION,
      dataDir: settings.dataDir,
      listen: `${settings.listen.hostname}:${settings.listen.port}`,
      store: { backend: settings.storeBackend, diskBytes: await storeBytes(settings) },
      certificate: await certificateOf(settings),
    };
  },
};

/** Opening the store would bring an older schema up to date: its files are only measured. */
async function storeBytes({ dataDir, storeBackend }: Settings): Promise<number> {
  if (storeBackend === "file") return await folderBytes(join(dataDir, "journal"));
  const sizes = ["qpq.db", "qpq.db-wal"].map((name) => fileBytes(join(dataDir, name)));
  return (await Promise.all(sizes)).reduce((sum, bytes) => sum + bytes, 0);
}

async function fileBytes(path: string): Promise<number> {
  return await Deno.stat(path).then(({ size }) => size, () => 0);
}

async function folderBytes(path: string): Promise<number> {
  let sum = 0;
  try {
    for await (const entry of Deno.readDir(path)) {
      if (entry.isFile) sum += await fileBytes(join(path, entry.name));
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return sum;
}

async function certificateOf({ tlsCert, dataDir }: Settings): Promise<JsonObject | null> {
  const path = tlsCert ?? join(dataDir, "tls", "server.pem");
  const pem = await readTextIfThere(path);
  if (pem === null) return null;
  try {
    const { names, notAfter, leafSha256 } = inspectCertificate(pem);
    return { path, names: [...names], expiresAt: notAfter, fingerprint: fingerprintText(leafSha256) };
  } catch {
    return { path, problem: "it cannot be read as a certificate" };
  }
}
