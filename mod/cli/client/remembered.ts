/** The server in a state folder, for a command that can do without the folder. */
import { join } from "node:path";
import { exists } from "../../base/files.ts";
import { ClientState } from "../../client/state.ts";
import { StateError } from "../../client/state_error.ts";
import type { ServerRecord } from "../../client/state_records.ts";
import type { Context } from "./context.ts";
import { statePassphrase } from "./passphrase.ts";

/** The server that is remembered; null when there is none, or when it cannot be looked at now. */
export async function rememberedServer(context: Context): Promise<ServerRecord | null> {
  const { stateFolder, output } = context;
  if (!await exists(join(stateFolder, "key"))) return null;
  try {
    const passphrase = await statePassphrase(context, "existing");
    await using state = await ClientState.open({
      folder: stateFolder,
      ...(passphrase ? { passphrase } : {}),
    });
    return state.one("server") ?? null;
  } catch (error) {
    if (!(error instanceof StateError)) throw error;
    output.talk(`Not looking into the state folder: ${error.message}`);
    return null;
  }
}
