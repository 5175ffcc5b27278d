/** `qpq-server health`: for HEALTHCHECK and for people. */
import type { Command } from "commander";
import type { JsonObject } from "../admin/control.ts";
import { health } from "../admin/operations_server.ts";
import { adminCommand } from "./admin_command.ts";
import type { Terminal } from "./terminal.ts";

interface Check {
  readonly name: string;
  readonly ok: boolean;
  readonly reason?: string;
}

/** Adds the command to `program`. */
export function addHealth(program: Command, terminal: Terminal): void {
  let wanted: "healthy" | "ready" = "healthy";
  adminCommand(program, {
    words: "health",
    description: "ask the running server whether it is well; exit code 0 if so, else 1",
    operation: health,
    declare: (command) => command.option("--ready", "a server that drains is not well either"),
    input: (flags) => {
      if (flags["ready"] === true) wanted = "ready";
      return {};
    },
    show: (result) => (result["checks"] as unknown as Check[]).map(line).join(""),
    exitCode: (result: JsonObject) => result[wanted] === true ? 0 : 1,
  }, terminal);
}

function line({ name, ok, reason }: Check): string {
  return `${ok ? "ok  " : "FAIL"}  ${name}${reason === undefined ? "" : `: ${reason}`}\n`;
}
