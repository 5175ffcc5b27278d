/**
 * THE seam of administration: one operation is one function (context, input, progress) → result, without printing,
 * on a running server and, where that makes sense, on the data folder of a stopped one. To add one:
 * 1. write an {@link Operation} in a file of mod/admin (its input read with operations_input.ts, every durable
 *    change followed by `await context.step("what was done")`, where tests crash it);
 * 2. add it to operations_table.ts; what it needs of a running server is a member of {@link LiveServer},
 *    which mod/server/admin_handlers.ts implements;
 * 3. write its command in mod/cli with adminCommand() of admin_command.ts, which reaches the running server or
 *    opens the folder, and says which it did.
 * What changes something goes to the audit log by itself, unless its input has `dryRun: true`.
 */
import type { Clock } from "../base/clock.ts";
import type { DeviceId } from "../base/ids.ts";
import { messageOf } from "../base/errors.ts";
import type { Settings } from "../config/options.ts";
import type { ServerNotice, Store } from "../store/store.ts";
import { AuditLog } from "./audit.ts";
import type { JsonObject, Progress } from "./control.ts";
import { AdminBusyError, AdminError } from "./operations_error.ts";
import type { LiveServer } from "./operations_live.ts";

export type { JsonObject, Progress } from "./control.ts";
export { AdminError } from "./operations_error.ts";

/** What an operation works on. */
export interface AdminContext {
  /** Inside the running server, or on the folder of a stopped one. */
  readonly via: "running" | "stopped";
  readonly clock: Clock;
  /** As they are in force: a reload of the running server changes them. */
  readonly settings: Settings;
  /** The store; that of a stopped server is opened at the first call. */
  store(): Promise<Store>;
  /** Text of the key that the store is under, one of the lines of db_key. Never printed. */
  storeKey(): Promise<string>;
  /** What a device's revocation puts into the queues of the account's others. */
  deviceRevokedNotice(deviceId: DeviceId): ServerNotice;
  /** The running server; null on a stopped one. */
  readonly server: LiveServer | null;
  /** To be awaited after each durable change: a place between two of them, where tests end the process. */
  step(name: string): Promise<void>;
}

/** One administrative operation. */
export interface Operation {
  /** The words of its command: `rotate auth-token`. On the control socket it is `POST /rotate/auth-token`. */
  readonly name: string;
  /** Without a server: `refused`; `reads` looks at the folder; `changes` holds it meanwhile, as a server does. */
  readonly whenStopped: "refused" | "reads" | "changes";
  /** Without a server: can do without a data folder. */
  readonly withoutFolder?: boolean;
  /** Goes to the audit log. */
  readonly audited: boolean;
  /** Keys of the input that no log may hold. */
  readonly secretInputs?: readonly string[];
  /** Of the operations with the same word here one runs at a time; another is refused. */
  readonly alone?: string;
  run(context: AdminContext, input: JsonObject, progress: Progress): Promise<JsonObject>;
}

/** Runs the operations of one process. */
export class OperationRunner {
  readonly #context: AdminContext;
  readonly #audit: AuditLog;
  readonly #running = new Map<string, { name: string; since: number }>();

  constructor(context: AdminContext) {
    this.#context = context;
    this.#audit = new AuditLog(context.settings.dataDir, context.clock);
  }

  /** Runs `operation`; throws AdminError, or whatever it failed with. */
  async run(
    operation: Operation,
    { input, progress = () => {} }: { input: JsonObject; progress?: Progress },
  ): Promise<JsonObject> {
    const { via } = this.#context;
    const { name, alone } = operation;
    if (via === "stopped" && operation.whenStopped === "refused") {
      throw new AdminError(`Only a running server can do this: ${name}`);
    }
    const other = alone === undefined ? undefined : this.#running.get(alone);
    if (other) {
      const since = new Date(other.since).toISOString();
      throw new AdminBusyError(
        `Cannot ${name} while "${other.name}" is running (since ${since}); wait for its end`,
      );
    }
    if (alone !== undefined) this.#running.set(alone, { name, since: this.#context.clock.now() });
    try {
      if (!operation.audited || input["dryRun"] === true) {
        return await operation.run(this.#context, input, progress);
      }
      return await this.#audit.record(
        { operation: name, input: withoutSecrets(operation, input), via },
        () => operation.run(this.#context, input, progress),
      );
    } finally {
      if (alone !== undefined) this.#running.delete(alone);
    }
  }
}

function withoutSecrets(operation: Operation, input: JsonObject): JsonObject {
  const secret = operation.secretInputs ?? [];
  return Object.fromEntries(
    Object.entries(input).map(([key, value]) => [key, secret.includes(key) ? "…" : value]),
  );
}

/** `step` of a context outside of tests. */
export async function noStep(): Promise<void> {}

/** Runs `work`; its failure becomes an AdminError that begins with `what`. */
export async function orAdminError<T>(what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    throw new AdminError(`${what}: ${messageOf(cause)}`, { cause });
  }
}
