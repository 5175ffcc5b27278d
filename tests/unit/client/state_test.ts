/** The state folder: what survives, what a crash leaves at every byte, and each refusal. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { randomBytes } from "../../../mod/base/bytes.ts";
import { type EntryId, type GroupId, type MessageId, randomId } from "../../../mod/base/ids.ts";
import { ClientState } from "../../../mod/client/state.ts";
import { StateError, type StateErrorReason } from "../../../mod/client/state_error.ts";
import { SEEN_MAX } from "../../../mod/client/state_overlay.ts";
import type { GroupRecord, OutboxRecord } from "../../../mod/client/state_records.ts";

/** A temporary folder that removes itself. */
async function temporaryFolder() {
  const path = await Deno.makeTempDir({ prefix: "qpq-state-" });
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}

function group(options: Partial<GroupRecord> = {}): GroupRecord {
  return {
    id: randomId<GroupId>(),
    name: "friends",
    mls: { base: randomBytes(200), delta: randomBytes(20) },
    status: "active",
    joinedMs: 1,
    seq: 0,
    names: {},
    ...options,
  };
}

function outbox(): OutboxRecord {
  const commit = { next: { base: randomBytes(9), delta: randomBytes(3) }, epoch: 12n };
  return { messageId: randomId<MessageId>(), request: randomBytes(50), createdMs: 5, commit };
}

async function refuses(reason: StateErrorReason, work: () => Promise<unknown>, text?: RegExp): Promise<void> {
  await assert.rejects(work, (error) => {
    assert(error instanceof StateError);
    assert.equal(error.reason, reason);
    if (text) assert.match(error.message, text);
    return true;
  });
}

Deno.test("transaction() saves several tables, and open() reads them back", async () => {
  await using folder = await temporaryFolder();
  const row = group();
  const request = outbox();
  {
    await using state = await ClientState.open({ folder: folder.path });
    await state.transaction((tx) => {
      tx.set("server", { hostname: "example.org", port: 7000, trust: null });
      tx.put("groups", row.id, row);
      tx.put("outbox", request.messageId, request);
      assert.deepEqual(tx.get("groups", row.id), row);
    });
    await state.transaction((tx) => tx.put("groups", row.id, { ...row, seq: 1 }));
  }
  await using state = await ClientState.open({ folder: folder.path });
  assert.deepEqual(state.one("server"), { hostname: "example.org", port: 7000, trust: null });
  assert.deepEqual(state.get("groups", row.id), { ...row, seq: 1 });
  assert.deepEqual(state.all("outbox"), [request]);
});

Deno.test("transaction() changes nothing when its work throws", async () => {
  await using folder = await temporaryFolder();
  await using state = await ClientState.open({ folder: folder.path });
  await state.transaction((tx) => tx.put("settings", "a", "1"));
  const failing = state.transaction((tx) => {
    tx.put("settings", "a", "2");
    throw new Error("no");
  });
  await assert.rejects(failing, /no/);
  assert.equal(state.get("settings", "a"), "1");
});

Deno.test("transaction() runs one at a time, in the order they were started", async () => {
  await using folder = await temporaryFolder();
  await using state = await ClientState.open({ folder: folder.path });
  const increment = () =>
    state.transaction(async (tx) => {
      const before = Number(tx.get("settings", "n") ?? 0);
      await Promise.resolve();
      tx.put("settings", "n", String(before + 1));
      return before;
    });
  assert.deepEqual(
    await Promise.all(Array.from({ length: 20 }, increment)),
    Array.from({ length: 20 }, (_, i) => i),
  );
  assert.equal(state.get("settings", "n"), "20");
});

Deno.test("a journal cut at any byte opens with exactly the transactions that are whole", async () => {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "state");
  const ends: number[] = [];
  {
    await using state = await ClientState.open({ folder: folder.path });
    ends.push((await Deno.stat(path)).size);
    for (let number = 1; number <= 3; number++) {
      await state.transaction((tx) => {
        tx.put("settings", "one", String(number));
        tx.put("settings", "other", String(number));
      });
      ends.push((await Deno.stat(path)).size);
    }
  }
  const whole = await Deno.readFile(path);
  for (let length = ends[0]!; length <= whole.length; length++) {
    await Deno.writeFile(path, whole.subarray(0, length));
    await using state = await ClientState.open({ folder: folder.path });
    const complete = ends.filter((end) => end <= length).length - 1;
    assert.equal(state.get("settings", "one"), complete ? String(complete) : undefined, `cut at ${length}`);
    assert.equal(state.get("settings", "other"), state.get("settings", "one"));
    assert.equal((await Deno.stat(path)).size, ends[complete]);
  }
});

Deno.test("a journal goes on after its torn end was cut off", async () => {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "state");
  {
    await using state = await ClientState.open({ folder: folder.path });
    await state.transaction((tx) => tx.put("settings", "a", "1"));
  }
  const torn = new Uint8Array([...await Deno.readFile(path), ...new Uint8Array(300)]); // grown, never filled
  await Deno.writeFile(path, torn);
  {
    await using state = await ClientState.open({ folder: folder.path });
    await state.transaction((tx) => tx.put("settings", "b", "2"));
  }
  await using state = await ClientState.open({ folder: folder.path });
  assert.deepEqual(state.all("settings"), ["1", "2"]);
});

Deno.test("open() refuses a journal in which any byte was changed", async () => {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "state");
  {
    await using state = await ClientState.open({ folder: folder.path });
    await state.transaction((tx) => tx.put("settings", "a", "1"));
    await state.transaction((tx) => tx.put("settings", "a", "2"));
  }
  const whole = await Deno.readFile(path);
  for (let index = 0; index < whole.length; index++) {
    const changed = whole.slice();
    changed[index]! ^= 0x55;
    await Deno.writeFile(path, changed);
    await assert.rejects(() => ClientState.open({ folder: folder.path }), StateError, `byte ${index}`);
  }
});

Deno.test("open() refuses a journal whose frames were reordered or whose first was dropped", async () => {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "state");
  const ends: number[] = [];
  {
    await using state = await ClientState.open({ folder: folder.path });
    for (const value of ["1", "2"]) {
      ends.push((await Deno.stat(path)).size);
      await state.transaction((tx) => tx.put("settings", "a", value));
    }
  }
  const whole = await Deno.readFile(path);
  const [header, first, second] = [
    whole.slice(0, ends[0]),
    whole.slice(ends[0], ends[1]),
    whole.slice(ends[1]),
  ];
  for (const content of [[...header, ...second, ...first], [...header, ...second]]) {
    await Deno.writeFile(path, new Uint8Array(content));
    await refuses("damaged", () => ClientState.open({ folder: folder.path }), /state at byte/);
  }
});

Deno.test("a message in a large state costs as much as in a small one", async () => {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "state");
  await using state = await ClientState.open({ folder: folder.path });
  const small = group();
  await state.transaction((tx) => tx.put("groups", small.id, small));
  const cost = async () => {
    const before = (await Deno.stat(path)).size;
    const now = state.get("groups", small.id)!;
    await state.transaction((tx) => {
      tx.put("groups", now.id, { ...now, seq: now.seq + 1, mls: { ...now.mls, delta: randomBytes(20) } });
    });
    return (await Deno.stat(path)).size - before;
  };
  const first = await cost();
  await state.transaction((tx) => {
    for (let index = 0; index < 20; index++) {
      const large = group({ mls: { base: randomBytes(20_000), delta: randomBytes(100) } });
      tx.put("groups", large.id, large);
    }
  });
  assert.equal(await cost(), first);
  assert(first < 700, `${first} bytes for a message: the base was written again`);
});

Deno.test("the journal is rewritten when most of it is dead, and keeps everything alive", async () => {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "state");
  const row = group();
  let writtenBytes = 0;
  {
    await using state = await ClientState.open({ folder: folder.path });
    await state.transaction((tx) => {
      tx.put("groups", row.id, row);
      tx.put("settings", "kept", "yes");
      tx.put("settings", "dropped", "no");
    });
    await state.transaction((tx) => tx.delete("settings", "dropped"));
    for (let number = 0; number < 40; number++) {
      const value = randomBytes(40_000).toBase64();
      writtenBytes += value.length;
      await state.transaction((tx) => tx.put("settings", "n", value));
    }
    await state.transaction((tx) => tx.put("settings", "n", "last"));
    assert((await Deno.stat(path)).size < writtenBytes / 1.5);
  }
  await using state = await ClientState.open({ folder: folder.path });
  assert.deepEqual(state.all("settings"), ["yes", "last"]);
  assert.deepEqual(state.get("groups", row.id), row);
});

Deno.test("open() rewrites a journal with much that is dead, so that old keys do not stay for long", async () => {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "state");
  {
    await using state = await ClientState.open({ folder: folder.path });
    const write = (value: string) => state.transaction((tx) => tx.put("settings", "n", value));
    for (let number = 0; number < 10; number++) await write(randomBytes(20_000).toBase64());
    await write("last");
    assert((await Deno.stat(path)).size > 200_000);
  }
  await using state = await ClientState.open({ folder: folder.path });
  assert((await Deno.stat(path)).size < 1_000);
  assert.equal(state.get("settings", "n"), "last");
});

Deno.test("a rewrite that fails loses nothing and fails no transaction", async () => {
  await using folder = await temporaryFolder();
  const blocker = join(folder.path, "state.new");
  {
    await using state = await ClientState.open({ folder: folder.path });
    await Deno.mkdir(blocker); // where the rewrite wants a file
    for (let number = 0; number < 40; number++) {
      await state.transaction((tx) => tx.put("settings", "n", number + randomBytes(40_000).toBase64()));
    }
    assert(state.get("settings", "n")?.startsWith("39"));
  }
  await Deno.remove(blocker);
  await using state = await ClientState.open({ folder: folder.path });
  assert(state.get("settings", "n")?.startsWith("39"));
});

Deno.test("open() drops a rewrite that a crash cut off", async () => {
  await using folder = await temporaryFolder();
  {
    await using state = await ClientState.open({ folder: folder.path });
    await state.transaction((tx) => tx.put("settings", "a", "1"));
  }
  await Deno.writeFile(join(folder.path, "state.new"), randomBytes(100));
  await using state = await ClientState.open({ folder: folder.path });
  assert.equal(state.get("settings", "a"), "1");
  await assert.rejects(() => Deno.stat(join(folder.path, "state.new")), Deno.errors.NotFound);
});

Deno.test("open() refuses a folder that is in use and names the process", async () => {
  await using folder = await temporaryFolder();
  {
    await using _state = await ClientState.open({ folder: folder.path });
    await refuses(
      "inUse",
      () => ClientState.open({ folder: folder.path }),
      new RegExp(`process ${Deno.pid}`),
    );
  }
  await (await ClientState.open({ folder: folder.path })).close();
});

Deno.test("open() asks for the passphrase, refuses a wrong one, and setPassphrase() changes it", async () => {
  await using folder = await temporaryFolder();
  const open = (passphrase?: string) =>
    ClientState.open({ folder: folder.path, ...(passphrase === undefined ? {} : { passphrase }) });
  await (await open("old")).close();
  await refuses("passphraseNeeded", () => open());
  await refuses("wrongPassphrase", () => open("wrong"), /try again/);
  const state = await open("old");
  await state.transaction((tx) => tx.put("settings", "a", "1"));
  await state.setPassphrase("new");
  await state.close();
  await refuses("wrongPassphrase", () => open("old"));
  await using again = await open("new");
  assert.equal(again.get("settings", "a"), "1");
});

Deno.test("open() refuses files that others may read", async () => {
  for (const name of ["key", "state"]) {
    await using folder = await temporaryFolder();
    await (await ClientState.open({ folder: folder.path })).close();
    await Deno.chmod(join(folder.path, name), 0o644);
    await refuses("permissions", () => ClientState.open({ folder: folder.path }), /mode 644.*chmod 600/);
  }
});

Deno.test("open() refuses a newer version, a lost key, and a damaged key", async () => {
  await using folder = await temporaryFolder();
  const [key, journal] = [join(folder.path, "key"), join(folder.path, "state")];
  await (await ClientState.open({ folder: folder.path })).close();
  const open = () => ClientState.open({ folder: folder.path });
  const whole = await Deno.readFile(journal);
  await Deno.writeFile(journal, whole.with(9, 2));
  await refuses("newerVersion", open, /update/);
  await Deno.writeFile(journal, whole);
  const text = await Deno.readTextFile(key);
  await Deno.writeTextFile(key, text.replace('"version":1', '"version":2'));
  await refuses("newerVersion", open);
  await Deno.writeTextFile(key, text.slice(0, 50));
  await refuses("damaged", open);
  await Deno.remove(key);
  await refuses("keyMissing", open, /restore it/);
});

Deno.test("nothing readable is in the folder", async () => {
  await using folder = await temporaryFolder();
  await using state = await ClientState.open({ folder: folder.path, passphrase: "secret" });
  await state.transaction((tx) => tx.put("settings", "planted-key", "planted-value"));
  for await (const entry of Deno.readDir(folder.path)) {
    const content = new TextDecoder("latin1").decode(await Deno.readFile(join(folder.path, entry.name)));
    assert.doesNotMatch(content, /planted/, entry.name);
  }
});

Deno.test("markSeen() tells repeated entries and remembers the newest 10,000", async () => {
  await using folder = await temporaryFolder();
  await using state = await ClientState.open({ folder: folder.path });
  const entries = Array.from({ length: SEEN_MAX + 5 }, () => randomId<EntryId>());
  const marked = await state.transaction((tx) => entries.map((entry) => tx.markSeen(entry)));
  assert(marked.every(Boolean));
  const next = randomId<EntryId>();
  await state.transaction((tx) => {
    assert.equal(tx.markSeen(next), true);
    assert.equal(tx.markSeen(next), false);
    assert.equal(tx.markSeen(entries.at(-1)!), false);
  });
  assert.equal(state.hasSeen(next), true);
  assert(state.all("seen").length <= SEEN_MAX + 5);
  for (let index = 0; index < 5; index++) await state.transaction((tx) => tx.markSeen(randomId<EntryId>()));
  assert.equal(state.hasSeen(entries[0]!), false);
  assert.equal(state.hasSeen(entries.at(-1)!), true);
});

Deno.test("a transaction cannot be used after it ended, nor the state after it was closed", async () => {
  await using folder = await temporaryFolder();
  const state = await ClientState.open({ folder: folder.path });
  const kept = await state.transaction((tx) => tx);
  assert.throws(() => kept.put("settings", "a", "1"), TypeError);
  await state.close();
  await refuses("closed", () => state.transaction((tx) => tx.put("settings", "a", "1")));
});
