/**
 * One operation in a process that kills itself after a given durable change of it: with a server running in it, or on
 * the folder of a stopped one. Ends with 0 when the operation has fewer changes. Argument: JSON of {@link Killing}.
 */
import { callControl, type JsonObject } from "../../mod/admin/control.ts";
import { runStopped } from "../../mod/admin/operations_stopped.ts";
import { OPERATIONS } from "../../mod/admin/operations_table.ts";
import { diskFile } from "../../mod/config/disk_file.ts";
import { load } from "../../mod/config/load.ts";

/** What to do, and after which change to die. */
export interface Killing {
  readonly dataDir: string;
  readonly via: "running" | "stopped";
  readonly name: string;
  readonly input: JsonObject;
  /** 1: after the first. */
  readonly afterStep: number;
}

if (import.meta.main) await main(JSON.parse(Deno.args[0]!));

async function main({ dataDir, via, name, input, afterStep }: Killing): Promise<void> {
  let steps = 0;
  const step = async () => {
    if (++steps === afterStep) Deno.kill(Deno.pid, "SIGKILL");
  };
  const flags = { "data-dir": dataDir, listen: "127.0.0.1:0", "opaque-workers": "1" };
  const { settings } = load({ env: {}, flags, readFile: diskFile });
  if (via === "stopped") {
    const operation = OPERATIONS.find((each) => each.name === name)!;
    const notice = () => {
      throw new Error("No rotation revokes a device");
    };
    await runStopped(operation, { settings, input, step, deviceRevokedNotice: notice });
  } else {
    const { startServer } = await import("../../mod/server/start.ts"); // a tenth of a second that others save
    await startServer(settings, { step });
    await callControl(dataDir, { name, input });
  }
  Deno.exit(0);
}
