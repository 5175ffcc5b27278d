/** `ping`, or `--ping`: is the server there, is it the right one, does it take the token? Needs no state folder. */
import { VERSION } from "../../base/version.ts";
import { connectServer, type ServerLink } from "../../client/identity.ts";
import { UsageError } from "../terminal.ts";
import type { Context } from "./context.ts";
import { rememberedServer } from "./remembered.ts";
import { accessToken, chosenIdentity, chosenServer, localCa, serverText } from "./server_choice.ts";

/** Asks the server for an echo and prints how long that took. */
export async function ping(context: Context): Promise<void> {
  const { output } = context;
  const { link, server } = await reach(context);
  try {
    const begin = performance.now();
    await link.connection.call("ping", { echo: crypto.getRandomValues(new Uint8Array(16)) });
    const roundTripMs = Math.round((performance.now() - begin) * 100) / 100;
    const { serverVersion } = link.hello;
    output.data(
      { server, roundTripMs, serverVersion },
      `${server} answers: round trip ${roundTripMs} ms, server version ${serverVersion}`,
    );
  } finally {
    await link.connection.close();
  }
}

async function reach(context: Context): Promise<{ link: ServerLink; server: string }> {
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
  const link = await connectServer({
    server: { hostname, port },
    choice: identity ?? (local ? { ca: local.ca } : undefined),
    trust: known,
    accessToken: await accessToken(flags, terminal),
    clientVersion: `qpq-client/${VERSION}`,
  });
  return { link, server: serverText(server) };
}
