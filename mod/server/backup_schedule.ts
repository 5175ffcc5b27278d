/**
 * Makes backups as `backup.schedule` says, through the same operation that an operator calls, and removes old ones
 * after each. It looks at the clock once a minute: a reload, a stopped process or a clock that was moved need nothing
 * more. Also keeps the metrics of backups right, whoever makes or removes one.
 */
import { Counter } from "prom-client";
import type { ControlHandler } from "../admin/control.ts";
import { backupsDirOf, newestBackup } from "../admin/backup_list.ts";
import { AdminBusyError } from "../admin/operations_error.ts";
import { dueAt, intervalOf } from "../admin/schedule.ts";
import { messageOf } from "../base/errors.ts";
import { logger } from "../base/log.ts";
import { parseSchedule, type Schedule } from "../config/schedule.ts";
import { StoreBusyError } from "../store/admin_store.ts";
import type { ServerContext } from "./context.ts";

const log = logger("backup");

const TICK_MS = 60_000;

/** What the schedule calls. */
export interface BackupHandlers {
  readonly create: ControlHandler;
  readonly prune: ControlHandler;
}

/** The schedule of one running server. */
export class BackupSchedule implements AsyncDisposable {
  readonly #context: ServerContext;
  readonly #handlers: BackupHandlers;
  readonly #failures: Counter;
  readonly #stopCollecting: () => void;
  #cancel: () => void = () => {};
  #failed: { at: number; times: number } | null = null;
  /** Of the backup to come, 0 to 1. */
  #jitter = Math.random();
  #running: Promise<void> = Promise.resolve();
  #stopped = false;

  constructor(context: ServerContext, handlers: BackupHandlers) {
    this.#context = context;
    this.#handlers = handlers;
    const { metrics } = context;
    this.#failures = new Counter({
      name: "qpq_backup_failures_total",
      help: "Scheduled backups that failed",
      registers: [metrics.registry],
    });
    this.#stopCollecting = metrics.onCollect(async () => {
      const newest = await this.#lastAt();
      metrics.backupLastSuccessSeconds.set((newest ?? 0) / 1000);
      metrics.backupIntervalSeconds.set(intervalOf(this.#schedule) / 1000);
    });
  }

  /** Begins to look at the clock. What was missed is made up at the first look. */
  start(): void {
    this.#cancel = this.#context.clock.after(TICK_MS, () => {
      this.#running = this.#tick().finally(() => {
        if (!this.#stopped) this.start();
      });
    });
  }

  /** Resolves when no backup is being made. */
  idle(): Promise<void> {
    return this.#running;
  }

  /** One look: makes a backup if one is due. Never rejects. */
  async #tick(): Promise<void> {
    try {
      const { clock, settings } = this.#context;
      const jitterMs = this.#jitter * settings.backup.jitterMs;
      const state = {
        schedule: this.#schedule,
        lastAt: await this.#lastAt(),
        failed: this.#failed,
        jitterMs,
      };
      const due = dueAt(state);
      if (due === null || due > clock.now() || this.#context.draining) return;
      await this.#make();
    } catch (error) {
      this.#fail(error);
    }
  }

  async #make(): Promise<void> {
    const silent = () => {};
    try {
      await this.#handlers.create({}, silent);
    } catch (error) {
      // An operator's own backup or a rotation is under way: the next look tries again.
      if (isBusy(error) || this.#stopped) return;
      throw error;
    }
    this.#failed = null;
    this.#jitter = Math.random();
    await this.#handlers.prune({}, silent).catch((error) => {
      if (!isBusy(error)) log.error("removing old backups failed: {reason}", { reason: messageOf(error) });
    });
  }

  #fail(error: unknown): void {
    this.#failures.inc();
    this.#failed = { at: this.#context.clock.now(), times: (this.#failed?.times ?? 0) + 1 };
    log.error("the scheduled backup failed: {reason}", {
      reason: messageOf(error),
      times: this.#failed.times,
    });
  }

  get #schedule(): Schedule {
    return parseSchedule(this.#context.settings.backup.schedule) ?? null;
  }

  async #lastAt(): Promise<number | null> {
    return (await newestBackup(backupsDirOf(this.#context.settings)))?.manifest?.createdAt ?? null;
  }

  /** Waits for a backup that is being made; whoever stops the server has ended its work before. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped = true;
    this.#cancel();
    this.#stopCollecting();
    await this.#running;
  }
}

/** Refused because of something else that is under way. */
function isBusy(error: unknown): boolean {
  if (error instanceof AdminBusyError || error instanceof StoreBusyError) return true;
  return error instanceof Error && error.cause !== undefined && isBusy(error.cause);
}
