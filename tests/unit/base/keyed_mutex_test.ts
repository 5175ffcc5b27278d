import assert from "node:assert/strict";
import { KeyedMutex } from "../../../mod/base/keyed_mutex.ts";

Deno.test("KeyedMutex runs work on one key in order, and on others beside it", async () => {
  const mutex = new KeyedMutex();
  const seen: string[] = [];
  const gate = Promise.withResolvers<void>();
  const first = mutex.run("a", async () => {
    await gate.promise;
    seen.push("a1");
  });
  const second = mutex.run("a", async () => void seen.push("a2"));
  await mutex.run("b", async () => void seen.push("b"));
  gate.resolve();
  await Promise.all([first, second]);
  assert.deepEqual(seen, ["b", "a1", "a2"]);
  assert.equal(mutex.size, 0);
});

Deno.test("KeyedMutex hands errors to their caller and goes on", async () => {
  const mutex = new KeyedMutex();
  const failed = assert.rejects(mutex.run("a", () => Promise.reject(new Error("mine"))), /mine/);
  assert.equal(await mutex.run("a", async () => "next"), "next");
  await failed;
  assert.equal(mutex.size, 0);
});
