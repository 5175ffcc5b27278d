/** Servers that deliver in any order to each other: a seeded run shows every message to every member all the same. */
import assert from "node:assert/strict";
import { join } from "node:path";
import type { Client } from "../../../mod/client/mod.ts";
import { FakeFederation, type FakeServer } from "../../support/fake_federation.ts";
import { prng } from "../../support/prng.ts";
import { tempFolder } from "../../support/temp_folder.ts";
import { texts } from "../../support/test_user.ts";

const DOMAINS = ["a.test", "b.test", "c.test"];
/** No more than a message's epoch is readable later. */
const LATE_MEMBERS = ["dave@a.test", "dora@b.test", "dirk@c.test", "doris@a.test"];
const ROUNDS = 16;

/** One of the group's first members, with what they wrote and read. */
interface Person {
  readonly client: Client;
  readonly server: FakeServer;
  readonly wrote: string[];
  readonly read: string[];
}

/** The group, and the network between the servers. */
class Run {
  readonly net = new FakeFederation();
  readonly random: () => number;
  readonly people: Person[] = [];

  constructor(seed: number) {
    this.random = prng(seed);
  }

  async begin(folder: string): Promise<void> {
    for (const [index, domain] of DOMAINS.entries()) {
      const server = this.net.server(domain);
      const name = ["alice", "bob", "carol"][index]!;
      const client = await server.client(name, join(folder, name));
      this.people.push({ client, server, wrote: [], read: [] });
    }
    for (const address of LATE_MEMBERS) {
      const [name, domain] = address.split("@") as [string, string];
      await (await this.net.servers.get(domain)!.client(name, join(folder, name))).close();
    }
    await this.people[0]!.client.createGroup("team", { users: ["bob@b.test", "carol@c.test"] });
    await this.hear();
  }

  /** Some deliveries wait from now on. */
  hold(): void {
    for (const [from, to] of pairs()) if (this.random() < 0.4) this.net.hold(from, to);
  }

  /** What waited is delivered, in any order. */
  release(): void {
    for (const [from, to] of pairs()) {
      this.net.release(from, to, (held) => {
        const drawn = held.map((deliver) => ({ deliver, place: this.random() }));
        return drawn.sort((a, b) => a.place - b.place).map(({ deliver }) => deliver);
      });
    }
  }

  async hear(): Promise<void> {
    for (const { client, read } of this.people) read.push(...await texts(client));
  }

  async act(late: string[], text: string): Promise<void> {
    const { client, wrote } = this.people[Math.floor(this.random() * this.people.length)]!;
    if (late.length > 0 && this.random() < 0.35) {
      // A commit that came first has to arrive before this one can be made.
      for (const { server } of this.people) server.onWrongEpoch = () => this.release();
      await client.addMember("team", late.pop()!);
    } else {
      await client.send("team", text);
      wrote.push(text);
    }
  }
}

/** The client's own timers do not keep a process without a network alive. */
function keepAlive(): Disposable {
  const timer = setInterval(() => {}, 1_000);
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

function pairs(): [string, string][] {
  return DOMAINS.flatMap((from) =>
    DOMAINS.filter((to) => to !== from).map((to): [string, string] => [from, to])
  );
}

for (const seed of [1, 2, 3, 4]) {
  Deno.test(`whatever order servers deliver in, members see every message and one group (seed ${seed})`, async () => {
    await using folder = await tempFolder();
    const run = new Run(seed);
    using _alive = keepAlive();
    await run.begin(folder.path);
    const late = [...LATE_MEMBERS];
    for (let round = 0; round < ROUNDS; round++) {
      run.hold();
      await run.act(late, `message ${round}`);
      if (run.random() < 0.4) run.release();
      if (run.random() < 0.6) await run.hear();
    }
    run.release();
    await run.hear();
    const [first] = run.people.map(({ client }) => client.groups()[0]!);
    for (const { client, read } of run.people) {
      const others = run.people.filter((one) => one.client !== client).flatMap(({ wrote }) => wrote);
      assert.deepEqual(read.map((line) => line.split(": ")[1]!).sort(), others.sort());
      const { status, waiting, epoch, members } = client.groups()[0]!;
      assert.deepEqual([status, waiting, epoch], ["active", 0, first!.epoch]);
      assert.equal(members.length, first!.members.length);
    }
    for (const { client } of run.people) await client.close();
  });
}
