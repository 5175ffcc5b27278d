/** `qpq-server init`: makes what a first start makes, for production, where serve makes no secrets. */
import type { Command } from "commander";
import { systemClock } from "../base/clock.ts";
import { diskFile } from "../config/disk_file.ts";
import { load } from "../config/load.ts";
import { initDataFolder } from "../server/start.ts";
import { addOptionFlags, optionFlags } from "./option_flags.ts";
import type { Terminal } from "./terminal.ts";

/** Adds the command to `program`. */
export function addInit(program: Command, terminal: Terminal): void {
  const command = program.command("init")
    .description("make the data folder with access token, database key and certificate, and stop")
    .option("--json", "print what was made as JSON");
  addOptionFlags(command);
  command.action(async (flags: Record<string, string | boolean>) => {
    const { settings } = load({
      env: terminal.env,
      flags: optionFlags(flags),
      readFile: diskFile,
      purpose: "tool",
    });
    const made = await initDataFolder(settings, systemClock);
    if (flags["json"]) terminal.out(JSON.stringify({ made }) + "\n");
    else {terminal.out(
        made.length === 0 ? "Everything is there.\n" : made.map((thing) => `made ${thing}\n`).join(""),
      );}
  });
}
