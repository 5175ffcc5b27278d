/** Runs the long tasks inside a worker, one at a time, telling their progress; between two steps they can be ended. */
import { QpqError } from "../../base/errors.ts";
import { asStoreError } from "../maintenance.ts";
import { checkDatabase } from "./check.ts";
import { isSqliteFull } from "./connection.ts";
import { reencrypt } from "./reencrypt.ts";
import type { Upkeep } from "./upkeep.ts";
import type { Failure, Response, Task } from "./wire.ts";

/** The long task of one worker. */
export class LongTask {
  readonly #answer: (response: Response) => void;
  #abortReason: string | undefined;
  /** While the file is being replaced: no batch may run before it has resolved. */
  swapping: Promise<unknown> | undefined;

  constructor(answer: (response: Response) => void) {
    this.#answer = answer;
  }

  /** Begins a task; the answer is `taskDone` or `taskFailed`. */
  begin(task: Task, upkeep: Upkeep | undefined): void {
    this.#abortReason = undefined;
    const work = this.#run(task, upkeep);
    if (task.name === "swap") {
      this.swapping = work.then(() => {}, () => {}).then(() => this.swapping = undefined);
    }
    work.then(
      (value) => this.#answer({ type: "taskDone", value }),
      (error) => this.#answer({ type: "taskFailed", failure: failureOf(error) }),
    );
  }

  /** Ends the task under way, if any, at its next step. */
  abort(reason: string, upkeep: Upkeep | undefined): void {
    this.#abortReason = reason;
    upkeep?.abort(reason);
  }

  async #run(task: Task, upkeep: Upkeep | undefined): Promise<unknown> {
    const onProgress = (share: number) => this.#answer({ type: "progress", share });
    switch (task.name) {
      case "copyTo":
        return await upkeep!.copyTo(task.target, onProgress);
      case "key":
        return upkeep!.key;
      case "share":
        return upkeep!.share();
      case "unshare":
        return upkeep!.unshare();
      case "swap":
        return await upkeep!.swap(task.key);
      case "reencrypt":
        return await this.#steps(reencrypt(task.work));
      case "check":
        return await this.#steps(checkDatabase(task));
    }
  }

  /** Between two steps messages come in: an abort among them. */
  async #steps<Result>(steps: Generator<number, Result>): Promise<Result> {
    for (;;) {
      if (this.#abortReason !== undefined) {
        steps.return(undefined as Result);
        throw new QpqError("storeUnavailable", this.#abortReason);
      }
      const { done, value } = steps.next();
      if (done) return value;
      this.#answer({ type: "progress", share: value });
      await new Promise((resolve) => setTimeout(resolve));
    }
  }
}

function failureOf(error: unknown): Failure {
  const code = isSqliteFull(error) ? "storeFull" : asStoreError(error, "Cannot finish").code;
  const { message } = error instanceof Error ? error : new Error(String(error));
  return { code: code as Failure["code"], message };
}
