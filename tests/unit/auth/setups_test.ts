/** OPAQUE setups: the first one is made once, said once, and never changes. */
import assert from "node:assert/strict";
import { OpaquePool } from "../../../mod/auth/opaque.ts";
import { OpaqueSetups } from "../../../mod/auth/setups.ts";
import { configureLogs } from "../../../mod/base/log.ts";
import { openStore } from "../../../mod/store/open.ts";
import { FakeClock } from "../../support/fake_clock.ts";

Deno.test("OpaqueSetups.open() makes a setup at the first start only, and logs that", async () => {
  const dataDir = await Deno.makeTempDir();
  const lines: string[] = [];
  configureLogs({ filter: "info", format: "json", write: (line) => lines.push(line) });
  const generated = () =>
    lines.filter((line) => line.includes("generated and persisted new OPAQUE ServerSetup")).length;
  try {
    await using pool = await OpaquePool.open({ workers: 1, pendingMax: 4 });
    const secrets: string[] = [];
    for (let start = 0; start < 2; start++) {
      await using store = await openStore({ backend: "sqlcipher", dataDir, keys: ["key"] });
      const setups = await OpaqueSetups.open({ store, pool, clock: new FakeClock() });
      assert.equal(generated(), 1);
      const newest = setups.newest();
      assert.equal(newest.secret.length, 128);
      assert.equal((await setups.find(newest.setupId))?.setupId, newest.setupId);
      assert.equal(await setups.find(newest.setupId + 1), null);
      secrets.push(newest.secret.toHex());
    }
    assert.equal(secrets[0], secrets[1]);
    assert.ok(!lines.some((line) => line.includes(secrets[0]!)));
  } finally {
    await Deno.remove(dataDir, { recursive: true });
  }
});

Deno.test("newest() and oldest() are setups that are not retired", async () => {
  const setup = (setupId: number, retiredAt: number | null) => {
    return { setupId, suiteId: 1, secret: new Uint8Array(128), createdAt: setupId, retiredAt };
  };
  const stored = [setup(1, 5), setup(2, null), setup(3, null), setup(4, 9)];
  const store = {
    opaqueSetups: () => Promise.resolve(stored),
    initOpaqueSetup: () => assert.fail("has some"),
    addOpaqueSetup: () => assert.fail("has one of each suite"),
    accountsBySetup: () => Promise.resolve([]),
  };
  await using pool = await OpaquePool.open({ workers: 1, pendingMax: 4 });
  const setups = await OpaqueSetups.open({ store, pool, clock: new FakeClock() });
  assert.equal(setups.newest().setupId, 3);
  assert.equal(setups.oldest().setupId, 2);
  assert.equal((await setups.find(1))?.setupId, 1);
});
