/** `qpq-server reload`. */
import type { Command } from "commander";
import type { JsonObject } from "../admin/control.ts";
import { reload } from "../admin/operations_server.ts";
import { adminCommand } from "./admin_command.ts";
import { describeRows } from "./admin_output.ts";
import type { Terminal } from "./terminal.ts";

/** Adds the command to `program`. */
export function addReload(program: Command, terminal: Terminal): void {
  adminCommand(program, {
    words: "reload",
    description: "read configuration file, secrets and certificate again (like SIGHUP); all of it or nothing",
    operation: reload,
    show: (result: JsonObject) => describeRows(result),
    help: "Options that need a restart are named. Environment and flags stay as they were at the start.",
  }, terminal);
}
