/** `qpq-server store convert`: into the other kind of store. */
import type { Command } from "commander";
import type { JsonObject } from "../admin/control.ts";
import { storeConvert } from "../admin/convert.ts";
import { adminCommand } from "./admin_command.ts";
import { countOf } from "./admin_output.ts";
import { dryRun } from "./rotate.ts";
import type { Terminal } from "./terminal.ts";

/** Adds the command to `program`. */
export function addStore(program: Command, terminal: Terminal): void {
  const store = program.command("store").description("the database or journal under the data folder");
  adminCommand(store, {
    words: "convert",
    description:
      "copy everything into a store of the other kind, compare, and put it in place (server stopped)",
    operation: storeConvert,
    declare: (command) => dryRun(command).requiredOption("--to <kind>", "file or sqlcipher"),
    input: (flags) => ({ to: String(flags["to"]), dryRun: flags["dryRun"] === true }),
    show: showConversion,
    help: "Example: qpq-server store convert --to file",
  }, terminal);
}

function showConversion({ from, to, path, accounts, entries, dryRun, notes }: JsonObject): string {
  const what = `${countOf(accounts, "account")} and ${countOf(entries, "waiting message")}`;
  const title = dryRun
    ? `${what} would be converted from ${from} to ${to} (${path}); nothing was changed.\n`
    : `In ${path} (${to}) now: ${what}.\n`;
  return title + (notes as readonly string[]).map((note) => ` * ${note}\n`).join("");
}
