/**
 * The room that is kept on the disk: below it whatever makes the store grow is refused, so that there is still
 * space for what goes on and makes it smaller — acks, deletions, expiry, resumed sessions.
 */
import { statfs } from "node:fs/promises";
import type { Clock } from "../base/clock.ts";
import { messageOf, QpqError } from "../base/errors.ts";
import { logger } from "../base/log.ts";
import type { MethodName } from "../protocol/methods.ts";

const log = logger("store");

/** Between two looks. A fast disk takes some hundred MB meanwhile: the reserve is for what is small. */
const LOOK_MS = 1_000;
const RETRY_MS = 10_000;

/** Methods that make the store grow; the others go on. */
const GROWING: ReadonlySet<MethodName> = new Set<MethodName>([
  "registerStart",
  "registerFinish",
  "createInvitation",
  "uploadKeyPackages",
  "enqueue",
  "putBlob",
]);

/** Watches the free space of the data folder's file system. */
export class DiskSpace implements Disposable {
  readonly #path: string;
  readonly #reserveBytes: () => number;
  readonly #clock: Clock;
  #freeBytes: number | null = null;
  #low = false;
  #cancel: () => void = () => {};
  #stopped = false;

  private constructor(path: string, options: { reserveBytes: () => number; clock: Clock }) {
    this.#path = path;
    this.#reserveBytes = options.reserveBytes;
    this.#clock = options.clock;
  }

  /** Looks now and from now on. */
  static async watch(
    path: string,
    options: { reserveBytes: () => number; clock: Clock },
  ): Promise<DiskSpace> {
    const space = new DiskSpace(path, options);
    await space.look();
    space.#schedule();
    return space;
  }

  /** Free bytes at the last look; null where the system does not tell. */
  get freeBytes(): number | null {
    return this.#freeBytes;
  }

  /** Why the store takes nothing new, in words; null when there is room. */
  get problem(): string | null {
    if (!this.#low) return null;
    return `the disk is nearly full: ${this.#freeBytes} bytes are free of the ${this.#reserveBytes()} that ` +
      `disk_reserve_bytes keeps; nothing new is stored until there is space`;
  }

  /** The refusal of a method that would make the store grow; null when it may be served. */
  refusal(method: MethodName): QpqError | null {
    if (!this.#low || !GROWING.has(method)) return null;
    return new QpqError("storeFull", `Only ${this.#freeBytes} bytes of the disk are free`, {
      retryAfterMs: RETRY_MS,
    });
  }

  /** Asks the system now. */
  async look(): Promise<void> {
    try {
      const { bavail, bsize } = await statfs(this.#path);
      this.#freeBytes = bavail * bsize;
    } catch (error) {
      // Without the figure the store's own errors tell.
      log.debug("the free space of the disk is not known: {reason}", { reason: messageOf(error) });
      this.#freeBytes = null;
    }
    const low = this.#freeBytes !== null && this.#freeBytes < this.#reserveBytes();
    if (low === this.#low) return;
    this.#low = low;
    const figures = { freeBytes: this.#freeBytes, reserveBytes: this.#reserveBytes() };
    if (low) log.error("disk nearly full: nothing new is stored; free some space", figures);
    else log.info("disk has room again", figures);
  }

  [Symbol.dispose](): void {
    this.#stopped = true;
    this.#cancel();
  }

  #schedule(): void {
    if (this.#stopped) return;
    this.#cancel = this.#clock.after(LOOK_MS, () => {
      this.look().finally(() => this.#schedule());
    });
  }
}
