/**
 * `ping`, or `--ping`: is the server there, is it the right one, does it take the token? Needs no state folder; without
 * a token the login of one stands in for it.
 */
import { addressText } from "../../base/address.ts";
import { VERSION } from "../../base/version.ts";
import { connectServer, type ServerLink } from "../../client/identity.ts";
import type { Context } from "./context.ts";
import { hasState, patiently, withClient } from "./open.ts";
import { accessToken } from "./server_choice.ts";
import { targetOf } from "./target.ts";

/** Asks the server for an echo and prints how long that took. */
export async function ping(context: Context): Promise<void> {
  const token = await accessToken(context.flags, context.terminal);
  if (token === undefined && await hasState(context)) return await pingByLogin(context);
  const { link, server } = await reach(context, token);
  try {
    const begin = performance.now();
    await link.connection.call("ping", { echo: crypto.getRandomValues(new Uint8Array(16)) });
    tell(context, {
      server,
      roundTripMs: performance.now() - begin,
      serverVersion: link.hello.serverVersion,
    });
  } finally {
    await link.connection.close();
  }
}

async function pingByLogin(context: Context): Promise<void> {
  await withClient(context, async (client) => {
    const { roundTripMs, serverVersion } = await client.ping();
    tell(context, { server: addressText(client.server), roundTripMs, serverVersion });
  });
}

function tell(
  { output }: Context,
  pong: { server: string; roundTripMs: number; serverVersion: string },
): void {
  const { server, serverVersion } = pong;
  const roundTripMs = Math.round(pong.roundTripMs * 100) / 100;
  output.data(
    { server, roundTripMs, serverVersion },
    `${server} answers: round trip ${roundTripMs} ms, server version ${serverVersion}`,
  );
}

async function reach(
  context: Context,
  token: string | undefined,
): Promise<{ link: ServerLink; server: string }> {
  const target = await targetOf(context);
  const link = await connectServer({
    ...target,
    connect: patiently(context),
    accessToken: token,
    clientVersion: `qpq-client/${VERSION}`,
  });
  return { link, server: addressText(target.server) };
}
