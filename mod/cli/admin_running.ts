/** `qpq-server expiry resume` and `qpq-server limits top`. */
import type { Command } from "commander";
import { resumeExpiry, topLimits } from "../admin/operations_server.ts";
import type { LimitUse } from "../admin/operations_live.ts";
import { adminCommand } from "./admin_command.ts";
import { type Terminal, UsageError } from "./terminal.ts";

/** Adds `expiry` to `program`. */
export function addExpiry(program: Command, terminal: Terminal): void {
  const expiry = program.command("expiry").description("deletion of what has expired");
  adminCommand(expiry, {
    words: "resume",
    description: "the clock was checked: go on deleting what has expired",
    operation: resumeExpiry,
    show: ({ wasPausedBecause }) =>
      wasPausedBecause === null
        ? "Expiry was not paused.\n"
        : `Expiry goes on (it was paused: ${wasPausedBecause}).\n`,
  }, terminal);
}

/** Adds `limits` to `program`. */
export function addLimits(program: Command, terminal: Terminal): void {
  const limits = program.command("limits").description("rate limits");
  adminCommand(limits, {
    words: "top",
    description: "who uses the limits most, with full addresses (nowhere else are they shown)",
    operation: topLimits,
    declare: (command) => command.option("--count <number>", "rows of each limit", "10"),
    input: (flags) => {
      const count = Number(flags["count"]);
      if (!Number.isInteger(count) || count < 1 || count > 1000) {
        throw new UsageError(`--count must be a whole number from 1 to 1000: ${flags["count"]}`);
      }
      return { count };
    },
    show: ({ limits }) => table(limits as unknown as LimitUse[]),
  }, terminal);
}

function table(uses: readonly LimitUse[]): string {
  if (uses.length === 0) return "Nobody has used a limit.\n";
  const rows = [
    ["limit", "left", "taken", "refused", "who"],
    ...uses.map(({ limit, left, taken, refused, key }) => [limit, `${left}`, `${taken}`, `${refused}`, key]),
  ];
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows.map((row) => row.map((cell, i) => cell.padEnd(widths[i]!)).join("  ").trimEnd() + "\n").join(
    "",
  );
}
