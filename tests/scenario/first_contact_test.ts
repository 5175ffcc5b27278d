/** The first steps of a client and of a server after something went wrong before. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { exists } from "../../mod/base/files.ts";
import { connect } from "../../mod/transport/deno_quic.ts";
import { ConnectError } from "../../mod/transport/connect_error.ts";
import type { ConnectOptions } from "../../mod/transport/transport.ts";
import { tempFolder } from "../support/temp_folder.ts";
import { startTestServer } from "../support/test_server.ts";
import { openClient, PASSWORD } from "../support/test_user.ts";

/** Handshakes of which the first `lost` are given up. */
function lossy(lost: number) {
  let tries = 0;
  return {
    get tries() {
      return tries;
    },
    async connect(options: ConnectOptions) {
      if (tries++ < lost) throw new ConnectError("unreachable", "Nobody answers within 10000 ms");
      return await connect(options);
    },
  };
}

Deno.test("register() and login() try again when a handshake was given up", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  const network = lossy(1);
  const client = await openClient(server, join(folder.path, "a"), { connect: network.connect });
  const { userName } = await client.register({ userName: "alice", password: PASSWORD });
  assert.equal(userName, "alice");
  await client.close();
  const other = await openClient(server, join(folder.path, "b"), { connect: lossy(1).connect });
  await other.login({ userName: "alice", password: PASSWORD });
  await other.close();
});

Deno.test("register() tells that nobody answers after a second handshake", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  const network = lossy(9);
  const client = await openClient(server, join(folder.path, "a"), { connect: network.connect });
  await assert.rejects(client.register({ userName: "alice", password: PASSWORD }), {
    problem: "unreachable",
  });
  assert.equal(network.tries, 2);
  await client.close();
});

Deno.test("a start removes the temporary file of a write that was killed", async () => {
  await using folder = await tempFolder();
  const dataDir = join(folder.path, "data");
  await (await startTestServer({ dataDir }))[Symbol.asyncDispose]();
  const left = join(dataDir, "secrets", "auth-token.0123abcd.tmp");
  await Deno.writeTextFile(left, "half of a to");
  await using _server = await startTestServer({ dataDir });
  assert.equal(await exists(left), false);
});
