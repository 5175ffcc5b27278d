/** Opens the client library from flags, environment and the state folder. */
import { join } from "node:path";
import { addressText } from "../../base/address.ts";
import { exists } from "../../base/files.ts";
import { logger } from "../../base/log.ts";
import { messageOf } from "../../base/errors.ts";
import { Client, type ClientOptions } from "../../client/mod.ts";
import { type Connect, tellingOfSilence } from "../../client/silence.ts";
import { UsageError } from "../terminal.ts";
import type { Context } from "./context.ts";
import { statePassphrase } from "./passphrase.ts";
import { rememberedServer } from "./remembered.ts";
import { accessToken, chosenIdentity, chosenServer, localCa } from "./server_choice.ts";

const log = logger("client");

/** What a command does with the client. */
type Work = (client: Client) => Promise<void>;

/** Runs `work` with a client of this state folder, which must have an account. Closes it. */
export async function withClient(context: Context, work: Work): Promise<void> {
  if (!await hasState(context)) {
    throw new Error(
      `There is no account in ${context.stateFolder}\n  Make one or log in: ${context.program} ` +
        "register USER, or login USER; an account in another folder: --state FOLDER",
    );
  }
  await withAnyClient(context, work);
}

/** Like {@link withClient}; makes the state folder when it is not there. */
export async function withAnyClient(context: Context, work: Work): Promise<void> {
  await using client = await Client.open(await clientOptions(context));
  await work(client);
}

/** Runs `work`, then what a client does beside: sending what waits, adding devices, keeping KeyPackages. */
export async function withUpkeep(client: Client, work: () => Promise<void>): Promise<void> {
  await work();
  try {
    await client.upkeep();
  } catch (error) {
    // The work is done; the next command tries again.
    log.debug("upkeep failed", { error });
  }
}

/** Hears what has happened. Without a connection what is known stands, and that is said. */
export async function refresh(client: Client, { output }: Context): Promise<void> {
  try {
    await client.upkeep();
  } catch (error) {
    output.talk(`Shown as last known here: ${messageOf(error)}`);
  }
}

async function clientOptions(context: Context): Promise<ClientOptions> {
  const { flags, terminal } = context;
  const server = chosenServer(flags);
  const token = await accessToken(flags, terminal);
  const identity = await clientIdentity(context);
  if (!server && !await hasState(context)) {
    throw new UsageError("Say which server: --server HOST:PORT; it is remembered");
  }
  const passphrase = await statePassphrase(context, await hasState(context) ? "existing" : "new");
  return {
    state: context.stateFolder,
    connect: patiently(context),
    ...(server ? { server } : {}),
    ...(identity ? { identity } : {}),
    ...(token === undefined ? {} : { accessToken: token }),
    ...(passphrase === undefined ? {} : { passphrase }),
  };
}

/** Connects, and tells who waits that nobody has answered yet. */
export function patiently({ output }: Context): Connect {
  return tellingOfSilence({
    onSilence: (server) => output.talk(`No answer yet from ${addressText(server)}; still trying`),
  });
}

/** Who the server must be: a flag, else what is remembered (undefined here), else the CA of a local data folder. */
async function clientIdentity(context: Context): Promise<ClientOptions["identity"]> {
  const { flags, terminal, output } = context;
  if (flags.fingerprint !== undefined) {
    await chosenIdentity(flags); // says what is wrong with it
    return { fingerprint: flags.fingerprint };
  }
  const chosen = await chosenIdentity(flags);
  if (chosen && "ca" in chosen) return chosen;
  const server = chosenServer(flags);
  const local = server && await localCa(server, terminal);
  if (!local || (await rememberedServer(context))?.trust) return undefined;
  output.talk(`Using ${local.path} to recognise the server, as it is on this machine`);
  return { ca: local.ca };
}

/** Is there a state folder? */
export function hasState({ stateFolder }: Context): Promise<boolean> {
  return exists(join(stateFolder, "key"));
}
