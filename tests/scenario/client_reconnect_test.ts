/** A client that follows while its server goes away and comes back, as a process that is really restarted. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { Client, ConnectionLostError } from "../../mod/client/mod.ts";
import type { Connection, ConnectOptions } from "../../mod/transport/transport.ts";
import { FaultyNetwork } from "../support/faulty_connection.ts";
import { freeUdpPort, ServerProcess } from "../support/server_process.ts";
import { tempFolder } from "../support/temp_folder.ts";
import { startTestServer } from "../support/test_server.ts";
import { openClient, PASSWORD } from "../support/test_user.ts";

Deno.test("receive() reconnects by itself after a restart of the server, and misses nothing", async () => {
  await using folder = await tempFolder();
  const options = { dataDir: join(folder.path, "data"), port: freeUdpPort() };
  await Deno.mkdir(options.dataDir);
  const first = await ServerProcess.start(options);
  const open = (name: string) =>
    Client.open({
      server: { hostname: first.hostname, port: first.port },
      state: join(folder.path, name),
      identity: { fingerprint: first.fingerprint },
      accessToken: first.accessToken,
    });
  await using alice = await open("alice");
  await using bob = await open("bob");
  await alice.register({ userName: "alice", password: PASSWORD });
  await bob.register({ userName: "bob", password: PASSWORD });

  const connections: string[] = [];
  const lost = Promise.withResolvers<void>();
  const heard = Promise.withResolvers<void>();
  const stop = new AbortController();
  const texts: string[] = [];
  const onConnection = (state: "connected" | "lost") => {
    connections.push(state);
    if (state === "lost") lost.resolve();
  };
  const following = (async () => {
    for await (const event of bob.receive({ follow: true, signal: stop.signal, onConnection })) {
      if (event.kind !== "text") continue;
      texts.push(event.text);
      if (texts.length === 1) heard.resolve();
      if (texts.length === 3) stop.abort();
    }
  })();
  await alice.send("bob", "before");
  await heard.promise;
  await first.end("SIGTERM");
  await lost.promise;
  await using _second = await ServerProcess.start(options);
  await alice.send("bob", "after the restart"); // on a new connection, by itself
  await alice.send("bob", "and on");
  await following;
  assert.deepEqual(texts, ["before", "after the restart", "and on"]);
  assert.deepEqual(connections, ["connected", "lost", "connected"]);
});

Deno.test("receive() ends at once when it is told to, also while nobody answers", async () => {
  await using folder = await tempFolder();
  await using server = await ServerProcess.start({ dataDir: join(folder.path, "data"), port: freeUdpPort() });
  const options = {
    server: { hostname: server.hostname, port: server.port },
    state: join(folder.path, "alice"),
    identity: { fingerprint: server.fingerprint },
  };
  {
    await using alice = await Client.open({ ...options, accessToken: server.accessToken });
    await alice.register({ userName: "alice", password: PASSWORD });
  }
  const connecting = Promise.withResolvers<void>();
  const connect = ({ signal }: ConnectOptions) => {
    connecting.resolve();
    return new Promise<Connection>((_, reject) =>
      signal!.addEventListener("abort", () => reject(signal!.reason))
    );
  };
  await using alice = await Client.open({ ...options, connect });
  const stop = new AbortController();
  const next = alice.receive({ follow: true, signal: stop.signal }).next();
  await connecting.promise;
  stop.abort();
  assert.equal((await next).done, true);
});

Deno.test("receive() tells of a connection that is lost with an Ack at once, and acknowledges on the next", async () => {
  await using folder = await tempFolder();
  await using server = await startTestServer();
  const network = new FaultyNetwork();
  await using alice = await openClient(server, join(folder.path, "alice"));
  await using bob = await openClient(server, join(folder.path, "bob"), { connect: network.connect });
  await alice.register({ userName: "alice", password: PASSWORD });
  await bob.register({ userName: "bob", password: PASSWORD });

  const stop = new AbortController();
  const connections: unknown[] = [];
  let sending: Promise<unknown> | undefined;
  const onConnection = (state: "connected" | "lost", error?: unknown) => {
    connections.push(error ?? state);
    if (state === "lost") network.isDown = false;
    else if (connections.length > 1) stop.abort();
    else {
      Object.assign(network, { fault: { method: "ack", lose: "request" }, staysDown: true });
      sending = alice.send("bob", "hello");
    }
  };
  await Array.fromAsync(bob.receive({ follow: true, signal: stop.signal, onConnection }));
  await sending;
  assert.equal(connections.length, 3);
  assert.ok(connections[1] instanceof ConnectionLostError, String(connections[1]));
  const cursor = await server.server.context.store.cursor(bob.whoami()!.deviceId);
  assert.ok(cursor!.ackedThrough > 0);
});

Deno.test("close() ends a receive() that follows", async () => {
  await using folder = await tempFolder();
  await using server = await startTestServer();
  const alice = await openClient(server, join(folder.path, "alice"));
  await alice.register({ userName: "alice", password: PASSWORD });
  const connected = Promise.withResolvers<void>();
  const next = alice.receive({ follow: true, onConnection: () => connected.resolve() }).next();
  await connected.promise;
  await alice.close();
  assert.equal((await next).done, true);
});
