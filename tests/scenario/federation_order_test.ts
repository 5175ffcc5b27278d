/** Order between servers when the receiving one fails at a message: what is for the same recipient waits behind it. */
import assert from "node:assert/strict";
import { utf8Text } from "../../mod/base/bytes.ts";
import { QpqError } from "../../mod/base/errors.ts";
import { receive, send, textsOf } from "../support/federation_messages.ts";
import { FederationWorld } from "../support/federation_world.ts";
import { newAccount, type TestClient } from "../support/test_client.ts";

const FLAGS = { "limits-request-rate": "10000" };

/** Two servers; nothing leaves the first one's outbox before `open` is called. */
async function gatedWorld() {
  const world = await FederationWorld.start(["a.example", "b.example"], { flags: FLAGS });
  return { world, open: world.holdOutboxes("a.example") };
}

/** The peer's store fails at a message with that text, each time that `fails` says so. */
function failAt(world: FederationWorld, fails: (text: string) => QpqError | null): void {
  const { store } = world.at("b.example").server.context;
  const enqueue = store.enqueue.bind(store);
  store.enqueue = (message) => {
    const error = fails(utf8Text(message.parts[0]!.payload));
    return error ? Promise.reject(error) : enqueue(message);
  };
}

const storeFull = () => new QpqError("storeFull", "There is no room for it");
const to = (...clients: TestClient[]) => [{
  domain: "b.example",
  devices: clients.map(({ deviceId }) => deviceId),
}];

Deno.test("a message that the peer's store fails at once is not overtaken, in its batch or the next", async () => {
  const { world, open } = await gatedWorld();
  await using _ = world;
  await using alice = await newAccount(world.at("a.example"), "alice");
  await using bob = await newAccount(world.at("b.example"), "bob");
  await using carol = await newAccount(world.at("b.example"), "carol");
  let failing = true;
  failAt(world, (text) => text === "4" && failing ? storeFull() : null);
  const texts = Array.from({ length: 400 }, (_, i) => `${i}`);
  const isForCarol = (text: string) => Number(text) % 2 === 1;
  for (const text of texts) await send(alice, to(isForCarol(text) ? carol : bob), { text });
  open();
  // Carol's do not wait for it.
  assert.deepEqual(textsOf(await receive(carol, 200)), texts.filter(isForCarol));
  failing = false;
  await world.federationAt("a.example").retry(null, "now");
  assert.deepEqual(textsOf(await receive(bob, 200)), texts.filter((text) => !isForCarol(text)));
  await world.outboxesHold("a.example", {});
});

Deno.test("what shares a recipient with a message that waits, waits too, and so does what is behind that", async () => {
  const { world, open } = await gatedWorld();
  await using _ = world;
  await using alice = await newAccount(world.at("a.example"), "alice");
  await using bob = await newAccount(world.at("b.example"), "bob");
  await using carol = await newAccount(world.at("b.example"), "carol");
  await using dave = await newAccount(world.at("b.example"), "dave");
  let failing = true;
  failAt(world, (text) => text === "to bob" && failing ? storeFull() : null);
  await send(alice, to(bob), { text: "to bob" });
  await send(alice, to(bob, carol), { text: "to both" });
  await send(alice, to(carol), { text: "to carol" });
  await send(alice, to(dave), { text: "to dave" });
  open();
  assert.deepEqual(textsOf(await receive(dave, 1)), ["to dave"]);
  failing = false;
  await world.federationAt("a.example").retry(null, "now");
  assert.deepEqual(textsOf(await receive(carol, 2)), ["to both", "to carol"]);
  assert.deepEqual(textsOf(await receive(bob, 2)), ["to bob", "to both"]);
});

Deno.test("a message that is refused for good keeps nothing back", async () => {
  const { world, open } = await gatedWorld();
  await using _ = world;
  await using alice = await newAccount(world.at("a.example"), "alice");
  await using bob = await newAccount(world.at("b.example"), "bob");
  failAt(world, (text) => text === "1" ? new QpqError("guardRequired", "A commit without a guard") : null);
  for (const text of ["0", "1", "2", "3"]) await send(alice, to(bob), { text });
  open();
  assert.deepEqual(textsOf(await receive(bob, 3)), ["0", "2", "3"]);
  await world.outboxesHold("a.example", {});
});
