/**
 * A disk in memory that keeps only what was synced: a power cut loses or tears any write since the last sync of its
 * file, and any change of names since the last sync of the folder. Calls can fail, take their time, or be the last
 * ones before the power goes.
 */
import type { Bytes } from "../../mod/base/bytes.ts";
import type { Clock } from "../../mod/base/clock.ts";
import { delay } from "../../mod/base/clock.ts";
import type { Disk, DiskFile, OpenMode } from "../../mod/store/file/disk.ts";
import type { SimRandom } from "./sim_random.ts";

/** A change of a file's content that is not on the platter yet. */
type Change =
  | { readonly kind: "write"; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly kind: "truncate"; readonly size: number };

/** A file's content as programs see it, and as a power cut leaves it. */
class Inode {
  seen: Uint8Array = new Uint8Array(0);
  durable: Uint8Array = new Uint8Array(0);
  unsynced: Change[] = [];

  change(change: Change): void {
    this.seen = applied(this.seen, change);
    this.unsynced.push(change);
  }

  sync(): void {
    this.durable = this.seen;
    this.unsynced = [];
  }

  /** A sync that failed: what it should have written may be gone although it is still seen. */
  loseSome(random: SimRandom): void {
    this.unsynced = this.unsynced.filter(() => random.chance(0.5));
  }

  /** What is there after the power came back. */
  cut(random: SimRandom): void {
    for (const change of this.unsynced) {
      if (random.chance(0.4)) continue;
      const torn = change.kind === "write" && random.chance(0.5)
        ? { ...change, bytes: change.bytes.subarray(0, random.int(0, change.bytes.length)) }
        : change;
      this.durable = applied(this.durable, torn);
    }
    this.seen = this.durable;
    this.unsynced = [];
  }
}

function applied(content: Uint8Array, change: Change): Uint8Array {
  if (change.kind === "truncate") {
    const cut = new Uint8Array(change.size);
    cut.set(content.subarray(0, change.size));
    return cut;
  }
  const grown = new Uint8Array(Math.max(content.length, change.offset + change.bytes.length));
  grown.set(content);
  grown.set(change.bytes, change.offset);
  return grown;
}

/** What goes wrong, in shares of all calls. */
export interface DiskFaults {
  /** Writes, syncs, renames and the like that fail. */
  readonly failing: number;
  /** Calls that take up to a second. */
  readonly slow: number;
}

/** How a planted bug makes the disk lie. */
export interface DiskLies {
  readonly sync?: boolean;
  readonly syncFolder?: boolean;
}

const SYNC_MS_MAX = 3;
const SLOW_MS_MAX = 1_000;

/** The disk itself; programs get at it through {@link mount}. */
export class SimDisk {
  faults: DiskFaults = { failing: 0, slow: 0 };
  lies: DiskLies = {};
  readonly #random: SimRandom;
  #names = new Map<string, Inode>();
  /** What of the names is durable, and the changes since, oldest first. */
  #durableNames = new Map<string, Inode>();
  #nameChanges: ((names: Map<string, Inode>) => void)[] = [];

  constructor(random: SimRandom) {
    this.#random = random;
  }

  /** Another disk with the same durable content. */
  clone(random: SimRandom): SimDisk {
    const other = new SimDisk(random);
    for (const [path, { durable }] of this.#durableNames) {
      const inode = new Inode();
      inode.durable = inode.seen = durable;
      other.#names.set(path, inode);
      other.#durableNames.set(path, inode);
    }
    return other;
  }

  /** The power goes: what was not synced is lost, torn or there, as it happens. */
  cutPower(): void {
    const survivors = this.#random.int(0, this.#nameChanges.length);
    for (const change of this.#nameChanges.slice(0, survivors)) change(this.#durableNames);
    this.#nameChanges = [];
    for (const inode of new Set(this.#durableNames.values())) inode.cut(this.#random);
    this.#names = new Map(this.#durableNames);
  }

  /**
   * The disk as one run of a program sees it. When that has been killed its calls neither take effect nor return.
   * `lastCall`: after so many calls `onLastCall` is told, within the call, and the program is no more.
   */
  mount(program: { clock: Clock; lastCall: number; onLastCall: () => void }): MountedDisk {
    return new MountedDisk(this, this.#random, program);
  }

  names(folder: string): string[] {
    const inside = [...this.#names.keys()].filter((path) => path.startsWith(`${folder}/`));
    return inside.map((path) => path.slice(folder.length + 1)).sort();
  }

  find(path: string): Inode {
    const inode = this.#names.get(path);
    if (!inode) throw osError("ENOENT", path);
    return inode;
  }

  create(path: string): Inode {
    const present = this.#names.get(path);
    if (present) {
      present.change({ kind: "truncate", size: 0 });
      return present;
    }
    const inode = new Inode();
    this.#rename((names) => names.set(path, inode));
    return inode;
  }

  rename(from: string, to: string): void {
    const inode = this.find(from);
    this.#rename((names) => {
      names.delete(from);
      names.set(to, inode);
    });
  }

  remove(path: string): void {
    this.find(path);
    this.#rename((names) => names.delete(path));
  }

  syncNames(): void {
    if (this.lies.syncFolder) return;
    this.#durableNames = new Map(this.#names);
    this.#nameChanges = [];
  }

  #rename(change: (names: Map<string, Inode>) => void): void {
    change(this.#names);
    this.#nameChanges.push(change);
  }
}

/** See {@link SimDisk.mount}. */
export class MountedDisk implements Disk {
  readonly #disk: SimDisk;
  readonly #random: SimRandom;
  readonly #program: { clock: Clock; lastCall: number; onLastCall: () => void };
  #calls = 0;
  #killed = false;

  constructor(
    disk: SimDisk,
    random: SimRandom,
    program: { clock: Clock; lastCall: number; onLastCall: () => void },
  ) {
    this.#disk = disk;
    this.#random = random;
    this.#program = program;
  }

  /** The program is gone. */
  kill(): void {
    this.#killed = true;
  }

  list(folder: string): Promise<string[] | null> {
    return this.#call("read", () => this.#disk.names(folder));
  }

  makeFolder(): Promise<void> {
    return this.#call("read", () => {});
  }

  async open(path: string, mode: OpenMode): Promise<DiskFile> {
    const inode = await this.#call(mode === "create" ? "change" : "read", () => {
      return mode === "create" ? this.#disk.create(path) : this.#disk.find(path);
    });
    return {
      size: async () => inode.seen.length,
      read: (offset, length) => this.#call("read", () => inode.seen.slice(offset, offset + length) as Bytes),
      write: (offset, bytes) =>
        this.#call("change", () => inode.change({ kind: "write", offset, bytes: bytes.slice() }), () => {
          const written = bytes.slice(0, this.#random.int(0, bytes.length));
          inode.change({ kind: "write", offset, bytes: written });
        }),
      sync: () =>
        this.#call("sync", () => {
          if (!this.#disk.lies.sync) inode.sync();
        }, () => inode.loseSome(this.#random)),
      truncate: (size) => this.#call("change", () => inode.change({ kind: "truncate", size })),
      close: () => {},
    };
  }

  rename(from: string, to: string): Promise<void> {
    return this.#call("change", () => this.#disk.rename(from, to));
  }

  remove(path: string): Promise<void> {
    return this.#call("change", () => this.#disk.remove(path));
  }

  syncFolder(): Promise<void> {
    return this.#call("sync", () => this.#disk.syncNames());
  }

  /** One call: takes time, is the last one, fails (with what `failing` leaves behind), or works. */
  async #call<Result>(
    kind: "read" | "change" | "sync",
    work: () => Result,
    failing: () => void = () => {},
  ): Promise<Result> {
    const { failing: failingShare, slow } = this.#disk.faults;
    if (this.#random.chance(slow)) await delay(this.#program.clock, this.#random.int(1, SLOW_MS_MAX));
    else if (kind === "sync") await delay(this.#program.clock, this.#random.int(0, SYNC_MS_MAX));
    if (this.#killed) return await new Promise(() => {});
    if (++this.#calls === this.#program.lastCall) {
      if (this.#random.chance(0.5)) work();
      this.#killed = true;
      this.#program.onLastCall();
      return await new Promise(() => {});
    }
    if (kind !== "read" && this.#random.chance(failingShare)) {
      failing();
      throw osError(this.#random.pick(["ENOSPC", "EIO"]), kind);
    }
    return work();
  }
}

function osError(code: string, what: string): Error {
  return Object.assign(new Error(`${code} in the simulation: ${what}`), { code });
}
