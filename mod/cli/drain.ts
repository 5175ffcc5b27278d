/** `qpq-server drain`. */
import type { Command } from "commander";
import { drain } from "../admin/operations_server.ts";
import { adminCommand } from "./admin_command.ts";
import type { Terminal } from "./terminal.ts";

/** Adds the command to `program`. */
export function addDrain(program: Command, terminal: Terminal): void {
  adminCommand(program, {
    words: "drain",
    description: "accept no new connections and requests, without stopping; /readyz fails meanwhile",
    operation: drain,
    declare: (command) => command.option("--undo", "accept them again"),
    input: (flags) => ({ undo: flags["undo"] === true }),
    show: ({ draining }) => draining ? "The server is draining.\n" : "The server accepts everything again.\n",
  }, terminal);
}
