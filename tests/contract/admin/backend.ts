/** What the operators' tests share: backends opened with given keys, and a store with much in it. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { randomBytes } from "../../../mod/base/bytes.ts";
import { DATA_PATHS, type StoreBackend } from "../../../mod/store/open.ts";
import { RowDigest } from "../../../mod/store/row_digest.ts";
import type { Store } from "../../../mod/store/store.ts";
import { type Person, WIDE_LIMITS, type World } from "../store/world.ts";

/** Keys of the tests. */
export const KEY = "5f".repeat(32);
export const OTHER_KEY = "a0".repeat(32);
export const PASSPHRASE = "a pass'phrase; with --things";

/** A backend under test. */
export interface Backend {
  readonly name: StoreBackend;
  /** Opens with these keys, the wanted one first; without any with {@link KEY}. */
  open(dataDir: string, ...keys: string[]): Promise<Store>;
}

/** Registers a test with a store of its own under {@link KEY}. */
export type AdminTest = (
  sentence: string,
  run: (world: World, backend: Backend) => Promise<void>,
  options?: { ignore?: boolean },
) => void;

/** Limits that let one sender fill a queue. */
export const GENEROUS = {
  ...WIDE_LIMITS,
  senderShare: 1,
  queueDepthMax: 1e6,
  queueBytesMax: 1e10,
  senderBytesPerDay: 1e12,
};

/** Two people, and `count` messages of `bytes` that wait for the second. */
export async function fill(
  world: World,
  { count, bytes }: { count: number; bytes: number },
): Promise<{ sender: Person; recipient: Person }> {
  const [sender, recipient] = [await world.person(), await world.person()];
  const parts = () => [{ payload: randomBytes(bytes), recipients: [recipient.deviceId] }];
  for (let sent = 0; sent < count; sent += 100) {
    const some = Array.from({ length: Math.min(100, count - sent) }, () => {
      return world.send(sender, [], { parts: parts(), limits: GENEROUS });
    });
    await Promise.all(some);
  }
  return { sender, recipient };
}

/** Fails unless both hold the same. */
export async function assertSame(store: Store, expected: RowDigest): Promise<void> {
  assert.deepEqual(expected.differences(await RowDigest.of(store.exportRows())), []);
}

/** The digest of everything in the store. */
export function digestOf(store: Store): Promise<RowDigest> {
  return RowDigest.of(store.exportRows());
}

/** Collects progress; it rises from 0 to 1. */
export class Progress {
  readonly shares: number[] = [];
  readonly on = (share: number): void => void this.shares.push(share);

  assertWhole(): void {
    assert.equal(this.shares.at(-1), 1);
    const risen = this.shares.every((share, index) => share >= (this.shares[index - 1] ?? 0) && share <= 1);
    assert.ok(risen, this.shares.join(" "));
  }
}

/** Names in a data folder but for the lock and what is no store's. */
export function namesIn(dataDir: string): string[] {
  const bases = Object.values(DATA_PATHS);
  return [...Deno.readDirSync(dataDir)].map((entry) => entry.name)
    .filter((name) => bases.some((base) => name.startsWith(base)) && !/-(wal|shm)$/.test(name)).sort();
}

/** Turns one bit of a payload that is stored; the store may be open. */
export function damage(backend: Backend, dataDir: string): void {
  const path = join(dataDir, DATA_PATHS[backend.name], backend.name === "file" ? "0000000001.segment" : "");
  using file = Deno.openSync(path.replace(/\/$/, ""), { read: true, write: true });
  const offset = Math.floor(file.statSync().size * 0.8);
  file.seekSync(offset, Deno.SeekMode.Start);
  const byte = new Uint8Array(1);
  file.readSync(byte);
  byte[0]! ^= 1;
  file.seekSync(offset, Deno.SeekMode.Start);
  file.writeSync(byte);
}
