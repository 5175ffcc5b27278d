/** `qpq-server log-level`. */
import type { Command } from "commander";
import type { JsonObject } from "../admin/control.ts";
import { logLevel } from "../admin/operations_server.ts";
import { adminCommand } from "./admin_command.ts";
import type { Terminal } from "./terminal.ts";

/** Adds the command to `program`. */
export function addLogLevel(program: Command, terminal: Terminal): void {
  adminCommand(program, {
    words: "log-level [filter]",
    description: "change what is logged, until the next reload or start; without a filter show it",
    operation: logLevel,
    input: (_flags, args): JsonObject => args[0] === undefined ? {} : { filter: args[0] },
    show: ({ log, before }) => log === before ? `${log}\n` : `${log} (before: ${before})\n`,
    help: "Example: qpq-server log-level info,qpq::delivery=debug",
  }, terminal);
}
