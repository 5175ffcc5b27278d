/** Asking before something is destroyed: what would be is looked up first, so that the question names it. */
import type { Command } from "commander";
import type { JsonObject } from "../admin/control.ts";
import type { Operation } from "../admin/operations.ts";
import { type AdminCall, reach } from "./admin_command.ts";
import { Prompter } from "./client/prompter.ts";
import { UsageError } from "./terminal.ts";

/** Adds `--dry-run` and `--yes`. */
export function destructive(command: Command): Command {
  return command.option("--dry-run", "say what would happen, and change nothing")
    .option("--yes", "do it without asking");
}

/**
 * Runs `operation` after the answer yes to `question`, which is made of its dry run; null asks nothing. With --yes or
 * --dry-run nobody is asked; without a terminal one of them is needed.
 */
export function confirmed(
  operation: Operation,
  question: (wouldBe: JsonObject) => string | null,
): (call: AdminCall) => Promise<JsonObject> {
  return async (call) => {
    const { flags, input, terminal } = call;
    if (flags["yes"] === true || input["dryRun"] === true) return await reach(operation, call);
    const quiet = { ...call, flags: { ...flags, json: true } };
    const asked = question(await reach(operation, { ...quiet, input: { ...input, dryRun: true } }));
    if (asked !== null) {
      const prompter = new Prompter(terminal);
      if (!prompter.canAsk) throw new UsageError(`${asked} Add --yes to do it, or --dry-run to only look`);
      const answer = await prompter.line(`${asked} Type yes to go on: `);
      if (answer.trim().toLowerCase() !== "yes") throw new UsageError("Nothing was changed");
    }
    return await reach(operation, call);
  };
}
