/** `qpq-server federation …` as an operator types it: what it says, what it refuses and how, its exit codes. */
import assert from "node:assert/strict";
import type { ClientWorld } from "../support/client_world.ts";
import { type Ended, Program } from "../support/program.ts";
import { freeUdpPort } from "../support/server_process.ts";
import { tempFolder } from "../support/temp_folder.ts";
import { twoServers } from "../support/two_servers.ts";

function federation(world: ClientWorld, ...words: string[]): Promise<Ended> {
  const { dataDir } = world.server;
  return Program.run(["federation", ...words, "--data-dir", dataDir], { cwd: world.folder.path });
}

/** Fails unless the command did so with a sentence on stderr, and nothing on stdout. */
function refused({ code, out, err }: Ended, sentence: RegExp, wanted = 1): void {
  assert.deepEqual([code, out], [wanted, ""], err);
  assert.match(err, sentence);
  assert.doesNotMatch(err, /\n\s+at |Error:/, "a stack or the name of a class");
}

Deno.test("federation: what waits for a peer that is down is shown, tried, kept and given up", async (t) => {
  const [here, there] = await twoServers();
  await using _here = here;
  await using _there = there;
  await here.register("alice");
  await there.register("bob");
  await here.succeedAs("alice", ["send", "bob@b.test", "first"]);

  await t.step("status and peers while all goes well", async () => {
    const status = await federation(here, "status");
    assert.equal(status.code, 0, status.err);
    assert.match(status.out, /^domain +a\.test$/m);
    const peers = await federation(here, "peers");
    assert.match(peers.out, /^b\.test +127\.0\.0\.1:\d+ +up /m);
  });
  await t.step("names that are none, or of no peer, are refused with what to do", async () => {
    const none = /Not a domain: no domain\. Write it like example\.org/;
    for (const verb of ["retry", "block", "unblock"]) {
      refused(await federation(here, verb, "no domain"), none);
    }
    refused(await federation(here, "retry", "z.test"), /z\.test is no peer.*federation peers/);
    refused(await federation(here, "unblock", "b.test"), /b\.test is not blocked.*federation peers/);
    refused(await federation(here, "block", "A.test"), /a\.test is this server's own domain.*another/);
    refused(await federation(here, "block"), /missing required argument 'domain'/, 2);
    refused(await federation(here, "forget", "b.test"), /unknown command 'forget'/, 2);
    refused(await federation(here, "retry", "--now"), /unknown option '--now'/, 2);
  });
  await t.step("a peer is away: retry tries, block keeps, unblock sends", async () => {
    await there.restart(async () => {
      await here.succeedAs("alice", ["send", "bob@b.test", "second"]);
      const status = await federation(here, "status");
      assert.match(status.out, /^b\.test +1 /m);
      const { outboxes } = JSON.parse((await federation(here, "status", "--json")).out);
      assert.deepEqual([outboxes[0].domain, outboxes[0].depth], ["b.test", 1]);
      assert.match((await federation(here, "retry", "--dry-run")).out, /^To be tried at once: b\.test\.\n$/);
      assert.match((await federation(here, "retry", "b.test")).out, /^Trying at once: b\.test\.\n$/);
      const dry = await federation(here, "block", "b.test", "--drop", "--dry-run");
      assert.match(dry.out, /^b\.test would be blocked; 1 message to be given up\.\n$/);
      const blocked = await federation(here, "block", "b.test");
      assert.match(blocked.out, /^b\.test is blocked; 1 message kept until they expire\.\n$/);
      assert.match((await federation(here, "peers")).out, /^b\.test .* blocked /m);
      refused(await here.runAs("alice", ["send", "bob@b.test", "no"]), /does not exchange messages with/);
    });
    const would = await federation(here, "unblock", "b.test", "--dry-run");
    assert.match(would.out, /^b\.test would no longer be blocked; 1 message for it waiting\.\n$/);
    const unblocked = await federation(here, "unblock", "b.test");
    assert.match(unblocked.out, /^b\.test is no longer blocked; 1 message for it waiting\.\n$/);
    await using bob = there.as("bob", ["--json", "recv", "--follow"]);
    await bob.printed(/second/);
  });
  await t.step("block --drop asks first, and tells the senders", async () => {
    await there.restart(async () => {
      await here.succeedAs("alice", ["send", "bob@b.test", "third"]);
      const asked = await federation(here, "block", "b.test", "--drop");
      refused(asked, /1 message for b\.test will be given up\. Add --yes to do it/, 2);
      const dropped = await federation(here, "block", "b.test", "--drop", "--yes");
      assert.match(dropped.out, /^b\.test is blocked; 1 message given up\.\n$/);
      await using alice = here.as("alice", ["--json", "recv", "--follow", "--events"]);
      await alice.printed(/"peerRemoved"/);
    });
  });
  await t.step("without a server: what needs one says so, the rest works on the folder", async () => {
    await here.restart(async () => {
      refused(await federation(here, "retry"), /start it first/);
      refused(
        await federation(here, "block", "b.test", "--drop", "--yes"),
        /Only a running server that federates can give up what waits for b\.test.*without --drop/,
      );
      const unblocked = await federation(here, "unblock", "b.test");
      assert.match(unblocked.out, /^b\.test is no longer blocked; 0 messages for it waiting\.\n$/);
      assert.match(unblocked.err, /no server runs on .*: worked on its data folder/);
      refused(await federation(here, "unblock", "b.test"), /b\.test is not blocked/);
      refused(await federation(here, "block", "no domain"), /Not a domain/);
    });
  });
});

Deno.test("federation: on a server that does not federate, and where there is none", async () => {
  await using folder = await tempFolder();
  const options = { cwd: folder.path, env: { QPQ_LOG_FORMAT: "json" } };
  const run = (...words: string[]) => Program.run(["federation", ...words], options);
  for (const words of [["status"], ["peers"], ["block", "b.test"], ["unblock", "b.test"]]) {
    refused(await run(...words), /no store|qpq-server init|serve/i);
  }
  refused(await run("retry"), /start it first/);
  await using server = new Program(["serve", "--listen", `127.0.0.1:${freeUdpPort()}`], options);
  await server.logged(/"msg":"listening"/);
  const status = await run("status");
  assert.equal(status.out, "This server does not federate (federation.domain is not set).\n");
  assert.equal((await run("peers")).out, "No peers: set federation.peers.\n");
  refused(await run("retry"), /does not federate: set federation\.domain and restart it/);
  refused(await run("block", "b.test", "--drop", "--yes"), /Only a running server that federates/);
});
