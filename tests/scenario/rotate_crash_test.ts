/** kill -9 after every durable change of every rotation: the server starts again, and who was a client still is. */
import assert from "node:assert/strict";
import { join } from "node:path";
import type { JsonObject } from "../../mod/admin/control.ts";
import { foreignPair } from "../support/certificates.ts";
import type { Killing } from "../support/rotate_killed.ts";
import { tempFolder } from "../support/temp_folder.ts";
import { connectTo, newAccount, type TestClient } from "../support/test_client.ts";
import { startTestServer } from "../support/test_server.ts";

const SCRIPT = new URL("../support/rotate_killed.ts", import.meta.url).pathname;

/** True: it killed itself; false: the operation had no such change. */
async function runKilled(killing: Killing): Promise<boolean> {
  const { code, signal, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", "--cached-only", "--no-check", SCRIPT, JSON.stringify(killing)],
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).output();
  if (signal === "SIGKILL") return true;
  assert.equal(code, 0, new TextDecoder().decode(stderr));
  return false;
}

/** Starts the server again: it admits by its token, and knows the client. */
async function startsAgain(dataDir: string, client: TestClient | null): Promise<TestClient> {
  await using server = await startTestServer({ dataDir });
  const link = await connectTo(server);
  assert.ok(link.connection);
  await link.connection[Symbol.asyncDispose]();
  const again = client ? await client.again(server) : await newAccount(server, "alice");
  await again.connection.call("ping", {});
  await again[Symbol.asyncDispose]();
  return again;
}

interface Story {
  readonly name: string;
  readonly input: () => Promise<JsonObject>;
  readonly stepsMin: number;
}

const STORIES: Record<string, Story> = {
  "rotate auth-token": {
    name: "rotate auth-token",
    input: async () => ({ overlapMs: 3_600_000 }),
    stepsMin: 3,
  },
  "rotate tls (announced)": { name: "rotate tls", input: async () => ({ renew: true }), stepsMin: 2 },
  "rotate tls --renew --now": {
    name: "rotate tls",
    input: async () => ({ renew: true, now: true }),
    stepsMin: 5,
  },
  "rotate tls --cert --key": {
    name: "rotate tls",
    input: async () => {
      const { certificatePem, privateKeyPem } = await foreignPair();
      return { certificatePem, privateKeyPem };
    },
    stepsMin: 5,
  },
  "rotate db-key": { name: "rotate db-key", input: async () => ({}), stepsMin: 6 },
  "rotate opaque": { name: "rotate opaque", input: async () => ({}), stepsMin: 2 },
  "rotate opaque --new-seed": { name: "rotate opaque", input: async () => ({ newSeed: true }), stepsMin: 2 },
  "rotate federation": {
    name: "rotate federation",
    input: async () => ({ ...await foreignPair() }),
    stepsMin: 5,
  },
};

for (const [title, { name, input, stepsMin }] of Object.entries(STORIES)) {
  for (const via of ["running", "stopped"] as const) {
    Deno.test(`${title}: killed after each change (${via}), the server starts again`, async () => {
      await using folder = await tempFolder();
      const dataDir = join(folder.path, "data");
      let client = await startsAgain(dataDir, null);
      let steps = 0;
      for (;;) {
        const killed = await runKilled({ dataDir, via, name, input: await input(), afterStep: steps + 1 });
        client = await startsAgain(dataDir, client);
        if (!killed) break;
        steps++;
      }
      assert.ok(steps >= stepsMin, `it has ${steps} durable changes`);
      const leftovers = [...Deno.readDirSync(dataDir), ...Deno.readDirSync(join(dataDir, "secrets"))]
        .filter((entry) => entry.name.endsWith(".tmp"));
      assert.deepEqual(leftovers, []);
    });
  }
}
