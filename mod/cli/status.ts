/** `qpq-server status`. */
import type { Command } from "commander";
import type { JsonObject } from "../admin/control.ts";
import { status } from "../admin/operations_status.ts";
import { adminCommand } from "./admin_command.ts";
import { describeRows } from "./admin_output.ts";
import type { Terminal } from "./terminal.ts";

/** Adds the command to `program`. */
export function addStatus(program: Command, terminal: Terminal): void {
  adminCommand(program, {
    words: "status",
    description: "show what the server does: connections, queues, store, certificate, last reload",
    operation: status,
    show: (result: JsonObject) => describeRows(result),
    help: "Example: qpq-server status --json | jq .certificate.expiresAt",
  }, terminal);
}
