/**
 * The audit log: `audit.log` in the data folder, one JSON object a line, appended to only, mode 0600. Each operation
 * has two lines with the same id: `begun` before it does anything, then `done` or `failed`. One that was cut off by
 * the end of its process has only the first.
 */
import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import { keepOwner, openPlainFile } from "../base/files.ts";
import { randomId } from "../base/ids.ts";
import { logger } from "../base/log.ts";
import { isNoSpace } from "../store/folder_lock.ts";
import type { JsonObject } from "./control.ts";
import { AdminError } from "./operations_error.ts";

const log = logger("audit");

/** Name of the log in the data folder. */
export const AUDIT_LOG = "audit.log";

/** What is recorded of an operation. Never a secret. */
export interface AuditSubject {
  readonly operation: string;
  readonly input: JsonObject;
  readonly via: "running" | "stopped";
}

/** Writes the log of one data folder. */
export class AuditLog {
  readonly #path: string;
  readonly #clock: Clock;

  constructor(dataDir: string, clock: Clock) {
    this.#path = join(dataDir, AUDIT_LOG);
    this.#clock = clock;
  }

  /** Runs `work` between two lines. When the first cannot be written nothing is done. */
  async record<T>(subject: AuditSubject, work: () => Promise<T>): Promise<T> {
    const id = randomId().slice(0, 16);
    await this.#begin({ id, ...subject, outcome: "begun" });
    try {
      const result = await work();
      await this.#end({ id, operation: subject.operation, outcome: "done" });
      return result;
    } catch (error) {
      const reason = messageOf(error);
      await this.#end({ id, operation: subject.operation, outcome: "failed", reason });
      throw error;
    }
  }

  /** A full disk does not keep an operator from what makes room. */
  async #begin(entry: JsonObject): Promise<void> {
    try {
      await this.#append(entry);
    } catch (cause) {
      if (!isNoSpace(cause)) {
        throw new AdminError(
          `Nothing was done, as the audit log ${this.#path} cannot be written: ${messageOf(cause)}`,
          { cause },
        );
      }
      log.error("the disk is full: {operation} is not in the audit log", { operation: entry["operation"] });
    }
  }

  async #end(entry: JsonObject): Promise<void> {
    await this.#append(entry).catch((error) =>
      log.error("the end of {operation} is not in the audit log: {reason}", {
        operation: entry["operation"],
        reason: messageOf(error),
      })
    );
  }

  async #append(entry: JsonObject): Promise<void> {
    const line = JSON.stringify({ time: new Date(this.#clock.now()).toISOString(), ...entry }) + "\n";
    const bytes = new TextEncoder().encode(line);
    using file = await openPlainFile(this.#path, { append: true, create: true, mode: 0o600 });
    await keepOwner(this.#path);
    // One write: lines of two processes never mix.
    if (await file.write(bytes) !== bytes.length) throw new Error("only a part of the line could be written");
    await file.sync();
  }
}
