/**
 * Notices when files change, also by a rename over them or through a link (as ACME clients and container mounts do
 * it): the system's notice where there is one, and a look at them now and then where there is none.
 */
import { dirname } from "node:path";
import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import { logger } from "../base/log.ts";

const log = logger("tls");

/** Several changes within this time are one. */
const DEBOUNCE_MS = 500;
/** Between two looks at the files. */
const POLL_MS = 30_000;

/** Watches until it is disposed. */
export class FileWatch implements Disposable {
  readonly #paths: readonly string[];
  readonly #clock: Clock;
  readonly #onChanged: () => Promise<void>;
  readonly #watchers: Deno.FsWatcher[] = [];
  #seen: string | null = null;
  #cancelPoll: () => void = () => {};
  #cancelDebounce: () => void = () => {};
  #ended = false;

  /** `onChanged` never rejects; it is also called once at the beginning. */
  constructor(paths: readonly string[], options: { clock: Clock; onChanged: () => Promise<void> }) {
    this.#paths = paths;
    this.#clock = options.clock;
    this.#onChanged = options.onChanged;
    this.#begin();
  }

  [Symbol.dispose](): void {
    this.#ended = true;
    this.#cancelPoll();
    this.#cancelDebounce();
    for (const watcher of this.#watchers.splice(0)) watcher.close();
  }

  async #begin(): Promise<void> {
    const folders = new Set<string>();
    for (const path of this.#paths) {
      folders.add(dirname(path));
      const real = await Deno.realPath(path).catch(() => null);
      if (real !== null) folders.add(dirname(real));
    }
    if (this.#ended) return;
    for (const folder of folders) this.#listen(folder);
    this.#schedulePoll();
    // They may have changed since they were read.
    await this.#check();
  }

  /** Without a notice (no inotify left, some network file systems) the looks remain. */
  #listen(folder: string): void {
    try {
      const watcher = Deno.watchFs(folder, { recursive: false });
      this.#watchers.push(watcher);
      this.#heed(watcher).catch((error) =>
        log.debug("watching ended: {reason}", { reason: messageOf(error) })
      );
    } catch (error) {
      log.debug("cannot watch {folder}: {reason}", { folder, reason: messageOf(error) });
    }
  }

  async #heed(watcher: Deno.FsWatcher): Promise<void> {
    for await (const { kind } of watcher) {
      if (kind === "access" || this.#ended) continue;
      this.#cancelDebounce();
      this.#cancelDebounce = this.#clock.after(DEBOUNCE_MS, () => this.#check());
    }
  }

  #schedulePoll(): void {
    if (this.#ended) return;
    this.#cancelPoll = this.#clock.after(POLL_MS, () => {
      this.#check().finally(() => this.#schedulePoll());
    });
  }

  async #check(): Promise<void> {
    const seen = await this.#look();
    if (this.#ended || seen === this.#seen) return;
    this.#seen = seen;
    await this.#onChanged();
  }

  /** What tells one version of the files from another. */
  async #look(): Promise<string> {
    const looks = this.#paths.map(async (path) => {
      const info = await Deno.stat(path).catch(() => null);
      return info && `${info.ino} ${info.size} ${info.mtime?.getTime()}`;
    });
    return (await Promise.all(looks)).join(", ");
  }
}
