/** The server's two doors: QUIC for clients, HTTP for metrics and health. */
import { limitKey, maskAddress, type NetAddress } from "../base/address.ts";
import { localNames } from "../admin/rotate_tls_files.ts";
import { messageOf } from "../base/errors.ts";
import { logger } from "../base/log.ts";
import { environmentName, type OptionKey } from "../config/options.ts";
import { showAddress } from "../config/values.ts";
import type { Expiry } from "../delivery/expiry.ts";
import { type HealthServer, startHealthServer } from "../observe/health.ts";
import { CLOSE_CODES } from "../protocol/close_codes.ts";
import { listen } from "../transport/deno_quic.ts";
import type { Connection, Listener } from "../transport/transport.ts";
import { ServerConnection } from "./connection.ts";
import type { ServerContext } from "./context.ts";
import { readiness } from "./readiness.ts";

const log = logger("server");

/** Listens for clients and serves them. Throws with the option to change when the address cannot be had. */
export function startListener(context: ServerContext): Listener {
  const { settings, metrics, certificates } = context;
  const listener = atAddress(
    "listen on",
    settings.listen,
    { protocol: "UDP", option: "listen" },
    () =>
      listen({
        hostname: settings.listen.hostname,
        port: settings.listen.port,
        certificate: certificates.current,
        idleTimeoutMs: settings.idleTimeoutMs,
        streamsMax: settings.limits.streamsMax,
        handshakesMax: settings.limits.handshakesMax,
        handshakesPerSecondMax: settings.limits.handshakeRate,
        udpBufferBytesWanted: settings.udpBufferBytes,
        onHandshakeFailure: (kind) => metrics.handshakeFailure(kind),
        onHandshakeLate: () => metrics.deadlineMissed("handshake"),
        onHandshakeRefused: (limit) => context.limits.hit(limit),
      }),
  );
  acceptAll(context, listener).catch((error) =>
    log.error("accepting ended: {error}", { error: messageOf(error) })
  );
  return listener;
}

/** Serves metrics and health. Throws like {@link startListener}. */
export function startHealth(
  context: ServerContext,
  parts: { listener: Listener; expiry: Expiry },
): HealthServer {
  const { settings, metrics, clock } = context;
  const where = { protocol: "TCP", option: "metrics_listen" } as const;
  return atAddress("serve metrics on", settings.metricsListen, where, () =>
    startHealthServer({
      listen: settings.metricsListen,
      names: [...settings.metricsNames ?? [], ...settings.tlsNames ?? [], ...localNames()],
      metrics,
      checks: () => readiness(context, parts),
      clock,
    }));
}

/** Runs `open`; an error of the operating system is told with the address and the option that names it. */
export function atAddress<Value>(
  action: string,
  address: NetAddress,
  where: { protocol: "UDP" | "TCP"; option: OptionKey },
  open: () => Value,
): Value {
  try {
    return open();
  } catch (cause) {
    const { protocol, option } = where;
    throw new Error(
      `Cannot ${action} ${showAddress(address)} (${protocol}): ${
        messageOf(cause)
      }; end what uses it, or set ` +
        `${option} (${environmentName(option)}) to an address of this machine that is free`,
      { cause },
    );
  }
}

/** Serves every connection of `listener`, or refuses it; returns when it stops accepting. */
export async function acceptAll(
  context: ServerContext,
  listener: Pick<Listener, "connections">,
): Promise<void> {
  for await (const connection of listener.connections()) admit(context, connection);
}

function admit(context: ServerContext, connection: Connection): void {
  const { metrics, limits } = context;
  const { hostname } = connection.remoteAddress;
  const key = limitKey(hostname);
  const refusal = context.draining ? "shuttingDown" : limits.admitConnection(key, maskAddress(hostname));
  if (refusal) return connection.close(CLOSE_CODES[refusal], refusal);
  metrics.connectionsTotal.inc();
  new ServerConnection(context, connection, key).run().catch((error) => {
    log.error("connection failed: {error}", { error: messageOf(error), address: maskAddress(hostname) });
    connection.close(CLOSE_CODES.internal, "internal");
  });
}
