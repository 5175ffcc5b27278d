/** `qpq-server doctor`: the table of what is well, what should be better, and what is broken. */
import type { Command } from "commander";
import { callControl, ControlError, type JsonObject, NotRunningError } from "../admin/control.ts";
import { doctor, examineWithout } from "../admin/doctor.ts";
import { runStopped } from "../admin/operations_stopped.ts";
import { systemClock } from "../base/clock.ts";
import { exists } from "../base/files.ts";
import { diskFile } from "../config/disk_file.ts";
import { dataDirOf, inspect, problemLine } from "../config/load.ts";
import { deviceRevokedNotice } from "../server/notices.ts";
import { type AdminCall, adminCommand, ProgressBar } from "./admin_command.ts";
import { optionFlags } from "./option_flags.ts";
import type { Terminal } from "./terminal.ts";

/** Adds the command to `program`. */
export function addDoctor(program: Command, terminal: Terminal): void {
  adminCommand(program, {
    words: "doctor",
    description: "check configuration, files, keys, certificate, machine, disk, backups and database",
    operation: doctor,
    declare: (command) => command.option("--quick", "do not read the whole database"),
    input: (flags) => ({ quick: flags["quick"] === true }),
    reach,
    show: showTable,
    exitCode: ({ fail }) => Number(fail) > 0 ? 1 : 0,
    help:
      "The exit code is 1 when anything is broken (fail), 0 when all is ok or should be better (warn).\n" +
      "Example: qpq-server doctor --json | jq '.checks[] | select(.status != \"ok\")'",
  }, terminal);
}

/** A configuration that cannot be used, or a server that does not answer, is what doctor is there to tell. */
async function reach({ input, flags, terminal }: AdminCall): Promise<JsonObject> {
  const source = {
    env: terminal.env,
    flags: optionFlags(flags),
    readFile: diskFile,
    purpose: "tool",
  } as const;
  const { settings, problems, warnings } = inspect(source);
  const configuration = { problems: problems.map(problemLine), warnings: warnings.map(problemLine) };
  const dataDir = dataDirOf(source);
  using bar = new ProgressBar(terminal, "doctor");
  const progress = (share: number) => bar.show(share);
  const given = { clock: systemClock, settings, configuration, progress };
  try {
    const result = await callControl(dataDir, { name: "doctor", input, onProgress: progress });
    return { via: "running", ...result as JsonObject };
  } catch (error) {
    if (error instanceof ControlError) {
      return { via: "stopped", ...await examineWithout(error.message, given) };
    }
    if (!(error instanceof NotRunningError)) throw error;
  }
  if (!await exists(settings.dataDir)) return { via: "stopped", ...await examineWithout(null, given) };
  const lines = {
    problems: configuration.problems.join("\n"),
    warnings: configuration.warnings.join("\n"),
  };
  const result = await runStopped(doctor, {
    settings,
    input: { ...input, ...lines },
    progress,
    deviceRevokedNotice: (deviceId) => deviceRevokedNotice({ clock: systemClock, settings }, deviceId),
  });
  return { via: "stopped", ...result };
}

const MARKS: Readonly<Record<string, string>> = { ok: "ok  ", warn: "WARN", fail: "FAIL" };

/** A row a check; below those that are not ok, what to do. */
function showTable({ checks, via, ...counts }: JsonObject): string {
  const rows = checks as readonly { name: string; status: string; found: string; remedy?: string }[];
  const width = Math.max(...rows.map(({ name }) => name.length));
  const lines = rows.map(({ name, status, found, remedy }) => {
    const indent = " ".repeat(width + 8);
    const advice = remedy === undefined ? "" : `${indent}→ ${remedy}\n`;
    return `${MARKS[status]}  ${name.padEnd(width)}  ${found}\n${advice}`;
  });
  const where = via === "running" ? "the running server" : "its data folder, no server runs";
  const { ok, warn, fail } = counts;
  return `${lines.join("")}\n${ok} ok, ${warn} to improve, ${fail} broken (seen by ${where})\n`;
}
