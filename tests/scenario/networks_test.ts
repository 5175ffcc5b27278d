/** The client library over networks that are bad, cut, or change its address: each message once, and in order. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { CallTimeoutError, type Client, ConnectError, ConnectionLostError } from "../../mod/client/mod.ts";
import { type TempFolder, tempFolder } from "../support/temp_folder.ts";
import { startTestServer, type TestServer } from "../support/test_server.ts";
import { openClient, PASSWORD, texts } from "../support/test_user.ts";
import { type NetworkConditions, UdpProxy } from "../support/udp_proxy.ts";

/** The long runs are a task of their own: deno task networks. */
const LONG = Deno.env.get("LONG_NETWORKS") !== undefined;

/** 20 % loss each way and 300 ms there and back (each way in long runs), and nothing else is well either. */
const AWFUL: Partial<NetworkConditions> = {
  loss: 0.2,
  delayMs: LONG ? 300 : 150,
  jitterMs: 50,
  reordered: 0.05,
  doubled: 0.05,
  damaged: 0.02,
};

/** A server, a network in front of it, and two people who know each other and are behind it. */
class World implements AsyncDisposable {
  private constructor(
    readonly folder: TempFolder,
    readonly server: TestServer,
    readonly proxy: UdpProxy,
    readonly alice: Client,
    readonly bob: Client,
  ) {}

  static async start(options: { seed: number; flags?: Record<string, string> }): Promise<World> {
    const { seed, flags = {} } = options;
    const folder = await tempFolder();
    const server = await startTestServer({ flags });
    const proxy = new UdpProxy(server.port, { seed });
    const open = (name: string) =>
      openClient(server, join(folder.path, name), {
        server: { hostname: server.hostname, port: proxy.port },
      });
    const [alice, bob] = [await open("alice"), await open("bob")];
    await alice.register({ userName: "alice", password: PASSWORD });
    await bob.register({ userName: "bob", password: PASSWORD });
    return new World(folder, server, proxy, alice, bob);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.alice.close();
    await this.bob.close();
    await this.proxy[Symbol.asyncDispose]();
    await this.server[Symbol.asyncDispose]();
    await this.folder[Symbol.asyncDispose]();
  }
}

/** Somebody who reads what comes, as long as the test wants. */
class Follower {
  readonly texts: string[] = [];
  readonly connections: string[] = [];
  readonly #stop = new AbortController();
  readonly #ended: Promise<void>;
  #wake = () => {};

  constructor(client: Client) {
    this.#ended = this.#follow(client);
  }

  /** Resolves when it is so. */
  async until(isSo: (follower: Follower) => boolean): Promise<void> {
    while (!isSo(this)) {
      await Promise.race([this.#ended, new Promise<void>((resolve) => this.#wake = resolve)]);
    }
  }

  /** All texts, when there are so many. */
  async got(count: number): Promise<string[]> {
    await this.until(({ texts }) => texts.length >= count);
    return this.texts;
  }

  async end(): Promise<void> {
    this.#stop.abort();
    await this.#ended;
  }

  async #follow(client: Client): Promise<void> {
    const onConnection = (state: string) => {
      this.connections.push(state);
      this.#wake();
    };
    for await (const event of client.receive({ follow: true, signal: this.#stop.signal, onConnection })) {
      if (event.kind !== "text") continue;
      this.texts.push(event.text);
      this.#wake();
    }
  }
}

const numbered = (count: number, name = "message") =>
  Array.from({ length: count }, (_, at) => `${name} ${at}`);

Deno.test("at 20 % loss and 300 ms each message arrives once and in order", async () => {
  await using world = await World.start({ seed: 1 });
  const { alice, bob, proxy } = world;
  await alice.send("bob", "hello"); // a group is made and joined while all is well
  const follower = new Follower(bob);
  await follower.got(1);
  proxy.become(AWFUL);
  const sent = numbered(LONG ? 30 : 3);
  await Promise.all(sent.map((text) => alice.send("bob", text)));
  assert.deepEqual(await follower.got(1 + sent.length), ["hello", ...sent]);
  assert.ok(proxy.counts.lost > 0 && proxy.counts.doubled > 0 && proxy.counts.reordered > 0);
  proxy.become({});
  await follower.end();
  assert.deepEqual(follower.texts, ["hello", ...sent]);
});

Deno.test("at 20 % loss and 300 ms a client that starts connects and sends what it has, once", async () => {
  await using world = await World.start({ seed: 2 });
  const { bob, proxy, server, folder } = world;
  const open = () =>
    openClient(server, join(folder.path, "carol"), { server: { ...server, port: proxy.port } });
  {
    await using carol = await open();
    await carol.register({ userName: "carol", password: PASSWORD });
    await carol.send("bob", "hello");
  }
  proxy.become(AWFUL);
  await using carol = await open();
  await sendOnce(carol, "made it");
  proxy.become({});
  assert.deepEqual(await texts(bob), ["carol: hello", "carol: made it"]);
});

Deno.test("a client whose address changes goes on over the same connection", async () => {
  await using world = await World.start({ seed: 3 });
  const { alice, bob, proxy } = world;
  const follower = new Follower(bob);
  await alice.send("bob", "before");
  await follower.got(1);
  for (const text of ["after one change", "after two"]) {
    proxy.rebind();
    await bob.send("alice", "I am here now"); // the server learns an address from what comes from it
    await alice.send("bob", text);
  }
  assert.deepEqual(await follower.got(3), ["before", "after one change", "after two"]);
  assert.deepEqual(follower.connections, ["connected"]);
  await follower.end();
});

Deno.test("a cut that the connection outlives costs nothing but time", async () => {
  await using world = await World.start({ seed: 4 });
  const { alice, bob, proxy } = world;
  const follower = new Follower(bob);
  await alice.send("bob", "before");
  await follower.got(1);
  proxy.cut();
  const lostBefore = proxy.counts.lost;
  const sending = alice.send("bob", "through the cut");
  while (proxy.counts.lost < lostBefore + 4) await nextTurn(); // sent, and sent again
  proxy.heal();
  await sending;
  assert.deepEqual(await follower.got(2), ["before", "through the cut"]);
  assert.deepEqual(follower.connections, ["connected"]);
  await follower.end();
});

Deno.test("a cut that the connection does not outlive heals by itself", async () => {
  await using world = await World.start({ seed: 5, flags: { "idle-timeout": "5s" } });
  await healsAfter(world, (follower) => follower.until(({ connections }) => connections.includes("lost")));
});

Deno.test({
  name: "a cut of a minute heals by itself",
  ignore: !LONG,
  async fn() {
    await using world = await World.start({ seed: 6 });
    await healsAfter(world, () => new Promise((resolve) => setTimeout(resolve, 60_000)));
  },
});

Deno.test("a file passes a network of 200 kB in a second that loses and damages packets", async () => {
  await using world = await World.start({ seed: 7 });
  const { alice, bob, proxy, folder } = world;
  const bytes = crypto.getRandomValues(new Uint8Array(60_000));
  const path = join(folder.path, "picture");
  await Deno.writeFile(path, bytes);
  await alice.send("bob", "look");
  proxy.become({ bytesPerSecond: 200_000, loss: 0.05, damaged: 0.05, delayMs: 20 });
  await alice.sendFile("bob", { path });
  const events = await Array.fromAsync(bob.receive());
  const file = events.find((event) => event.kind === "file");
  assert.ok(file?.kind === "file");
  const fetched = await bob.getFile(file.fileId, join(folder.path, "fetched"));
  assert.deepEqual(await Deno.readFile(fetched), bytes);
  assert.ok(proxy.counts.damaged > 0 && proxy.counts.lost > 0);
});

/** Cuts the network, sends into the cut, and sees everything arrive once it is healed. */
async function healsAfter(world: World, outlasted: (follower: Follower) => Promise<void>): Promise<void> {
  const { alice, bob, proxy } = world;
  const follower = new Follower(bob);
  await alice.send("bob", "before");
  await follower.got(1);
  proxy.cut();
  const sending = sendOnce(alice, "into the cut");
  await outlasted(follower);
  proxy.heal();
  await sending;
  await alice.send("bob", "after it");
  assert.deepEqual(await follower.got(3), ["before", "into the cut", "after it"]);
  assert.equal(follower.connections[0], "connected");
  assert.equal(follower.connections.at(-1), "connected");
  assert.ok(follower.connections.includes("lost"));
  await follower.end();
}

/** Sends to bob however often the server cannot be reached: what is in the outbox goes out from there. */
async function sendOnce(client: Client, text: string): Promise<void> {
  let send = () => client.send("bob", text) as Promise<unknown>;
  while (true) {
    try {
      return void await send();
    } catch (error) {
      const isUnreachable = [ConnectError, ConnectionLostError, CallTimeoutError].some((kind) =>
        error instanceof kind
      );
      if (!isUnreachable) throw error;
      if (client.unsent > 0) send = () => client.upkeep();
    }
  }
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 5));
}
