/** The server in a state folder, for a command that can do without the folder. */
import { join } from "node:path";
import { exists } from "../../base/files.ts";
import { ClientState } from "../../client/state.ts";
import { StateError } from "../../client/state_error.ts";
import type { ServerRecord } from "../../client/state_records.ts";
import type { Context } from "./context.ts";

/** The server that is remembered; null when there is none, or when it cannot be looked at now. */
export async function rememberedServer({ stateFolder, output }: Context): Promise<ServerRecord | null> {
  if (!await exists(join(stateFolder, "key"))) return null;
  try {
    await using state = await ClientState.open({ folder: stateFolder });
    return state.one("server") ?? null;
  } catch (error) {
    if (!(error instanceof StateError)) throw error;
    output.talk(`Not looking into the state folder: ${error.message}`);
    return null;
  }
}
