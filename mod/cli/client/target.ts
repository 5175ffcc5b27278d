/** Which server is meant, and how it is recognised, by flags, what was remembered, and the data folder on this machine. */
import type { ConnectServerOptions } from "../../client/identity.ts";
import { UsageError } from "../terminal.ts";
import type { Context } from "./context.ts";
import { rememberedServer } from "./remembered.ts";
import { chosenIdentity, chosenServer, localCa } from "./server_choice.ts";

/** What connectServer() needs to know of the server, for commands that work without an account of their own. */
export async function targetOf(
  context: Context,
): Promise<Pick<ConnectServerOptions, "server" | "choice" | "trust">> {
  const { flags, terminal, output } = context;
  const asked = chosenServer(flags);
  const identity = await chosenIdentity(flags);
  // What was remembered helps where flags leave something open.
  const remembered = asked && identity ? null : await rememberedServer(context);
  const server = asked ?? remembered;
  if (!server) throw new UsageError("Say which server: --server HOST:PORT");
  const { hostname, port } = server;
  const known = remembered?.hostname === hostname && remembered.port === port ? remembered.trust : null;
  const local = identity || known ? undefined : await localCa(server, terminal);
  if (local) output.talk(`Using ${local.path} to recognise the server, as it is on this machine`);
  return {
    server: { hostname, port },
    choice: identity ?? (local ? { ca: local.ca } : undefined),
    trust: known,
  };
}
