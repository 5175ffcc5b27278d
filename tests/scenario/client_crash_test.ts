/**
 * A client that loses its connection or crashes at the worst moments: nothing is lost, nothing arrives twice.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { type Client, ConnectError, ConnectionLostError } from "../../mod/client/mod.ts";
import { type Fault, FaultyNetwork } from "../support/faulty_connection.ts";
import { tempFolder } from "../support/temp_folder.ts";
import { startTestServer, type TestServer } from "../support/test_server.ts";
import { drain, openClient, PASSWORD, texts } from "../support/test_user.ts";

/** Alice, whose network can break, and Bob, who have talked already. */
async function world(folder: string, server: TestServer) {
  const network = new FaultyNetwork();
  const state = join(folder, "alice");
  const alice = await openClient(server, state, { connect: network.connect });
  const bob = await openClient(server, join(folder, "bob"));
  await alice.register({ userName: "alice", password: PASSWORD });
  await bob.register({ userName: "bob", password: PASSWORD });
  await alice.send("bob", "first");
  await drain(bob);
  return { alice, bob, network, state };
}

/** `work` fails at `fault`; the client is closed as it is then and opened again with a working network. */
async function crashAt(
  fault: Fault,
  run: {
    server: TestServer;
    state: string;
    alice: Client;
    network: FaultyNetwork;
    work: () => Promise<unknown>;
  },
): Promise<Client> {
  const { network } = run;
  Object.assign(network, { fault, staysDown: true });
  await assert.rejects(
    run.work(),
    (error) => error instanceof ConnectionLostError || error instanceof ConnectError,
  );
  assert.equal(network.broken, 1);
  await run.alice.close();
  return await openClient(run.server, run.state);
}

for (const lose of ["answer", "request"] as const) {
  Deno.test(`send() that loses its ${lose} is delivered once after a crash`, async () => {
    await using server = await startTestServer();
    await using folder = await tempFolder();
    const { alice, bob, network, state } = await world(folder.path, server);
    await using again = await crashAt({ method: "enqueue", lose }, {
      server,
      state,
      alice,
      network,
      work: () => alice.send("bob", "survives"),
    });
    await again.upkeep();
    await again.send("bob", "afterwards");
    assert.deepEqual(await texts(bob), ["alice: survives", "alice: afterwards"]);
    await bob.close();
  });

  Deno.test(`a commit that loses its ${lose} is followed by all after a crash`, async () => {
    await using server = await startTestServer();
    await using folder = await tempFolder();
    const { alice, bob, network, state } = await world(folder.path, server);
    await using carol = await openClient(server, join(folder.path, "carol"));
    await carol.register({ userName: "carol", password: PASSWORD });
    await alice.createGroup("team", { users: ["bob"] });
    await using again = await crashAt({ method: "enqueue", lose }, {
      server,
      state,
      alice,
      network,
      work: () => alice.addMember("team", "carol"),
    });
    await again.addMember("team", "carol");
    await again.send("team", "welcome");
    assert.deepEqual(await texts(carol), ["alice: welcome"]);
    await bob.send("team", "hello carol");
    assert.deepEqual(await texts(carol), ["bob: hello carol"]);
    assert.deepEqual(again.members("team").map((one) => one.userName), ["alice", "bob", "carol"]);
    await bob.close();
  });

  Deno.test(`send() that loses its ${lose} succeeds on the next connection`, async () => {
    await using server = await startTestServer();
    await using folder = await tempFolder();
    const { alice, bob, network } = await world(folder.path, server);
    network.fault = { method: "enqueue", lose };
    await alice.send("bob", "second");
    assert.equal(network.broken, 1);
    assert.deepEqual(await texts(bob), ["alice: second"]);
    await Promise.all([alice.close(), bob.close()]);
  });
}

Deno.test("a commit that was accepted long ago is recognised when it comes back through the queue", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  const { alice, bob, network, state } = await world(folder.path, server);
  await alice.createGroup("team");
  await using again = await crashAt({ method: "enqueue", lose: "answer" }, {
    server,
    state,
    alice,
    network,
    work: () => alice.addMember("team", "bob"),
  });
  // The server has forgotten the message id: the outbox alone would be told wrongEpoch.
  await server.server.context.store.expireMessageIds(Date.now() + 1, 1000);
  await again.send("team", "hello");
  assert.deepEqual(await texts(bob), ["alice: hello"]);
  await bob.close();
});

Deno.test("a message on its way while its sender is removed is still read", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  const { alice, bob, network, state } = await world(folder.path, server);
  await using carol = await openClient(server, join(folder.path, "carol"));
  await carol.register({ userName: "carol", password: PASSWORD });
  await bob.createGroup("team", { users: ["alice", "carol"] });
  await drain(alice);
  const work = () => alice.send("team", "my last words");
  await using again = await crashAt({ method: "enqueue", lose: "request" }, {
    server,
    state,
    alice,
    network,
    work,
  });
  await bob.removeMember("team", "alice");
  await again.upkeep(); // hears of it, and sends what it had encrypted before
  assert.deepEqual(await texts(carol), ["alice: my last words"]);
  await bob.close();
});

Deno.test("receive() that loses its ack shows nothing twice", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  const { alice, bob, network, state } = await world(folder.path, server);
  await bob.send("alice", "once");
  await using again = await crashAt({ method: "ack", lose: "request" }, {
    server,
    state,
    alice,
    network,
    work: () => drain(alice),
  });
  assert.deepEqual(await texts(again), ["bob: once"]);
  assert.deepEqual(await drain(again), []);
  await bob.close();
});

Deno.test("an event that was not finished comes again after a crash, with the same id", async () => {
  await using server = await startTestServer();
  await using folder = await tempFolder();
  const { alice, bob, state } = await world(folder.path, server);
  await bob.send("alice", "read me");
  const first = await alice.receive().next();
  await alice.close();
  await using again = await openClient(server, state);
  const [second] = await drain(again);
  assert.equal(first.value?.id, second?.id);
  await bob.close();
});
