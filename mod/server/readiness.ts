/** What must be so for this server to serve: for /readyz, for `health`, and in `status`. */
import { messageOf } from "../base/errors.ts";
import type { Expiry } from "../delivery/expiry.ts";
import type { Check } from "../observe/health.ts";
import type { Listener } from "../transport/transport.ts";
import type { ServerContext } from "./context.ts";

/** Runs all checks. */
export async function readiness(
  context: ServerContext,
  parts: { listener: Listener; expiry: Expiry },
): Promise<Check[]> {
  const { clock, certificates, disk } = context;
  const now = clock.now();
  await disk.look();
  // A write would wait for the end of it.
  const failure = context.rekeying ? null : await parts.expiry.writeMark().then(() => null, messageOf);
  const storeProblem = failure === null ? disk.problem : `the store cannot be written: ${failure}`;
  const { notBefore, notAfter } = certificates.info;
  const check = (name: string, ok: boolean, reason: string): Check =>
    ok ? { name, ok } : { name, ok, reason };
  return [
    check("store", storeProblem === null, storeProblem ?? ""),
    check("listener", parts.listener.accepting, "the QUIC listener is down"),
    check("certificate", now >= notBefore && now < notAfter, "the TLS certificate is not valid now"),
    check("draining", !context.draining, "the server is draining or shutting down"),
    check("key change", !context.rekeying, "the database is being encrypted under another key: writes wait"),
    {
      name: "expiry",
      ok: true,
      ...(parts.expiry.pausedBecause ? { reason: parts.expiry.pausedBecause } : {}),
    },
  ];
}
