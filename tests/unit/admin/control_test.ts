import assert from "node:assert/strict";
import { join } from "node:path";
import {
  callControl,
  type ControlHandler,
  NotRunningError,
  startControlServer,
} from "../../../mod/admin/control.ts";
import { tempFolder } from "../../support/temp_folder.ts";

const UNIX = { ignore: Deno.build.os === "windows" };

async function listening(dataDir: string, handlers: Record<string, ControlHandler> = {}) {
  return await startControlServer(dataDir, { echo: async (input) => input, ...handlers });
}

Deno.test("callControl() brings input there, progress and result back", UNIX, async () => {
  await using folder = await tempFolder();
  const count: ControlHandler = async (_, progress) => {
    progress(0.25);
    progress(1);
    return 7;
  };
  await using control = await listening(folder.path, { "count things": count });
  assert.equal(control.path, join(folder.path, "control.sock"));
  const shares: number[] = [];
  const onProgress = (share: number) => shares.push(share);
  assert.equal(await callControl(folder.path, { name: "count things", onProgress }), 7);
  assert.deepEqual(shares, [0.25, 1]);
  const input = { text: "ü", deep: { list: [1, null] } };
  assert.deepEqual(await callControl(folder.path, { name: "echo", input }), input);
});

Deno.test(
  "callControl() rejects with the server's message, for failures and unknown commands",
  UNIX,
  async () => {
    await using folder = await tempFolder();
    const fail: ControlHandler = async () => {
      throw new Error("The moon is in the way");
    };
    await using _control = await listening(folder.path, { fail });
    await assert.rejects(callControl(folder.path, { name: "fail" }), {
      name: "ControlError",
      message: /moon/,
    });
    await assert.rejects(callControl(folder.path, { name: "dance" }), /does not know the command dance/);
    await assert.rejects(callControl(folder.path, { name: "toString" }), /does not know/);
  },
);

Deno.test(
  "callControl() tells a stopped server, a stale socket and a missing folder alike",
  UNIX,
  async () => {
    await using folder = await tempFolder();
    await assert.rejects(callControl(folder.path, { name: "echo" }), NotRunningError);
    await assert.rejects(callControl(join(folder.path, "gone"), { name: "echo" }), NotRunningError);
    const stale = Deno.listen({ transport: "unix", path: join(folder.path, "other") });
    await Deno.rename(join(folder.path, "other"), join(folder.path, "control.sock"));
    stale.close();
    assert.ok((await Deno.lstat(join(folder.path, "control.sock"))).isSocket);
    await assert.rejects(callControl(folder.path, { name: "echo" }), NotRunningError);
    await using _control = await listening(folder.path);
    assert.deepEqual(await callControl(folder.path, { name: "echo", input: { here: true } }), { here: true });
  },
);

Deno.test("the socket has mode 0600, and goes with the server", UNIX, async () => {
  await using folder = await tempFolder();
  {
    await using control = await listening(folder.path);
    assert.equal((await Deno.stat(control.path)).mode! & 0o777, 0o600);
  }
  assert.deepEqual([...Deno.readDirSync(folder.path)], []);
});

Deno.test(
  "a path too long for a socket: it lies elsewhere, for its owner alone, and is found",
  UNIX,
  async () => {
    await using folder = await tempFolder();
    const dataDir = join(folder.path, "x".repeat(120));
    await Deno.mkdir(dataDir);
    let path: string;
    {
      await using control = await listening(dataDir);
      path = control.path;
      assert.match(path, /^\/tmp\/qpq-[0-9a-f]{16}\/control\.sock$/);
      assert.equal((await Deno.stat(join(path, ".."))).mode! & 0o777, 0o700);
      assert.deepEqual(await callControl(dataDir, { name: "echo", input: { far: 1 } }), { far: 1 });
      await Deno.chmod(join(path, ".."), 0o755);
      await assert.rejects(callControl(dataDir, { name: "echo" }), NotRunningError);
      await Deno.chmod(join(path, ".."), 0o700);
    }
    await assert.rejects(Deno.lstat(join(path, "..")), Deno.errors.NotFound);
  },
);

Deno.test("a command goes on when the operator who sent it has left", UNIX, async () => {
  await using folder = await tempFolder();
  const begun = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  const finished = Promise.withResolvers<void>();
  const slow: ControlHandler = async () => {
    begun.resolve();
    await gate.promise;
    finished.resolve();
    return null;
  };
  await using control = await listening(folder.path, { slow });
  const connection = await Deno.connect({ transport: "unix", path: control.path });
  await connection.write(
    new TextEncoder().encode("POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"),
  );
  await begun.promise;
  connection.close();
  gate.resolve();
  await finished.promise;
});

/** The answer to a request written by hand. */
async function raw(path: string, text: string): Promise<string> {
  using connection = await Deno.connect({ transport: "unix", path });
  await connection.write(new TextEncoder().encode(text));
  return await new Response(connection.readable).text();
}

Deno.test("the socket answers no web page, and forbids caching what it answers", UNIX, async () => {
  await using folder = await tempFolder();
  let calls = 0;
  await using control = await listening(folder.path, { count: async () => ++calls });
  const post = (head: string) =>
    raw(control.path, `POST /count HTTP/1.1\r\nConnection: close\r\nContent-Length: 2\r\n${head}\r\n\r\n{}`);
  const answer = await post("Host: control");
  assert.match(answer, /^HTTP\/1.1 200 /);
  assert.match(answer, /cache-control: no-store\r\n/);
  assert.match(await post("Host: control\r\nOrigin: http://evil.example"), /^HTTP\/1.1 403 /);
  assert.match(await post("Host: evil.example"), /^HTTP\/1.1 421 /);
  assert.match(
    await raw(control.path, "GET /count HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
    /^HTTP\/1.1 405 /,
  );
  assert.equal(calls, 1);
});

Deno.test("a command's body is bounded, whether it says how long it is or not", UNIX, async () => {
  await using folder = await tempFolder();
  await using control = await listening(folder.path);
  const body = JSON.stringify({ text: "x".repeat(2 << 20) });
  const client = Deno.createHttpClient({ proxy: { transport: "unix", path: control.path } });
  for (const sent of [body, new Response(body).body!]) {
    const response = await fetch("http://control/echo", { method: "POST", body: sent, client });
    assert.equal(response.status, 400);
    assert.match(await response.text(), /not a JSON object/);
  }
  client.close();
});
