/**
 * `doctor`: looks at everything that keeps a server from running well, now or on a bad day, and says what to do. It
 * changes nothing (it writes and removes one small file to time the disk).
 */
import type { Clock } from "../base/clock.ts";
import type { Settings } from "../config/options.ts";
import { backupGroup } from "./doctor_backup.ts";
import { certificateGroup } from "./doctor_certificate.ts";
import {
  checkJson,
  type DoctorCheck,
  type DoctorContext,
  type DoctorGroup,
  fail,
  runGroup,
} from "./doctor_check.ts";
import { diskGroup } from "./doctor_disk.ts";
import { filesGroup } from "./doctor_files.ts";
import { keysGroup } from "./doctor_keys.ts";
import { configurationGroup, serverGroup } from "./doctor_server.ts";
import { storeGroup } from "./doctor_store.ts";
import { systemGroup } from "./doctor_system.ts";
import {
  type AdminContext,
  AdminError,
  type JsonObject,
  type Operation,
  type Progress,
} from "./operations.ts";
import { InputReader } from "./operations_input.ts";

/** In the order of the table. What takes long is last. */
const GROUPS: readonly [string, DoctorGroup][] = [
  ["configuration", configurationGroup],
  ["server", serverGroup],
  ["files", filesGroup],
  ["keys", keysGroup],
  ["certificate", certificateGroup],
  ["system", systemGroup],
  ["disk", diskGroup],
  ["backup", backupGroup],
  ["database", storeGroup],
];

/** Lines of the configuration's problems that a command may hand over. */
const LINES_MAX = 1000;

/** Checks everything. */
export const doctor: Operation = {
  name: "doctor",
  whenStopped: "reads",
  audited: false,
  async run(context, input, progress) {
    const read = new InputReader(input);
    const quick = read.flag("quick");
    const configuration = {
      problems: linesOf(read.text("problems")),
      warnings: linesOf(read.text("warnings")),
    };
    read.end();
    return await examine({ admin: context, settings: context.settings, configuration, quick, progress });
  },
};

/** What doctor can tell without a server and without a data folder; `unreachable`: a server is there, and why it did not answer. */
export async function examineWithout(
  unreachable: string | null,
  given: {
    clock: Clock;
    settings: Settings;
    configuration: DoctorContext["configuration"];
    progress: Progress;
  },
): Promise<JsonObject> {
  const { clock, settings, configuration, progress } = given;
  const why = unreachable ?? `There is no data folder ${settings.dataDir}`;
  const refuse = () => Promise.reject(new AdminError(why));
  const admin: AdminContext = {
    via: "stopped",
    clock,
    settings,
    server: null,
    store: refuse,
    storeKey: refuse,
    deviceRevokedNotice: () => {
      throw new AdminError(why);
    },
    step: async () => {},
  };
  const remedy = "Run doctor as the server's user or as root; if the server hangs, restart it";
  const first = unreachable === null ? [] : [fail("server", unreachable, remedy)];
  return await examine({ admin, settings, configuration, quick: true, progress }, first);
}

async function examine(context: DoctorContext, first: readonly DoctorCheck[] = []): Promise<JsonObject> {
  const checks = [...first];
  for (const [name, group] of GROUPS) {
    if (name === "server" && first.length > 0) continue;
    checks.push(...await runGroup(name, group, context));
  }
  const count = (status: string) => checks.filter((check) => check.status === status).length;
  return {
    ok: count("ok"),
    warn: count("warn"),
    fail: count("fail"),
    quick: context.quick,
    checks: checks.map(checkJson),
  };
}

function linesOf(text: string | null): string[] {
  return text === null ? [] : text.split("\n").filter((line) => line !== "").slice(0, LINES_MAX);
}
