/**
 * What TLS has refused, in the words of our own judgement: the connection is gone by then, but the chain that was shown
 * is there to be looked at. So each engine gives one bad certificate the same reason.
 */
import { maskAddress, type NetAddress } from "../base/address.ts";
import { messageOf } from "../base/errors.ts";
import { tryNormaliseDomain } from "../base/user_address.ts";
import type { PeerRefusalReason } from "../observe/metrics.ts";
import { ConnectError, type RefusedCertificate } from "../transport/connect_error.ts";
import { type CertificateInfo, chainPem, inspectCertificate } from "../transport/tls.ts";
import type { FederationIdentity } from "./identity.ts";
import { PeerRefused, type RefusalLog } from "./refusal.ts";

/** The alert for it (decrypt_error). */
const BAD_SIGNATURE = 51;
/** Where our own look finds nothing wrong (another clock, a CA that TLS takes for none). */
const REASONS: ReadonlyMap<number | null, PeerRefusalReason> = new Map([
  [44, "revoked"],
  [45, "expired"],
  [48, "unknown_ca"],
  [BAD_SIGNATURE, "bad_signature"],
]);

async function refusalOfCertificate(
  identity: FederationIdentity,
  { chainDer, alert, domain, now }: RefusedCertificate & { domain: string; now: number },
): Promise<PeerRefused> {
  const reason = REASONS.get(alert) ?? "protocol";
  // Whoever cannot sign with it has only shown somebody else's.
  if (alert !== BAD_SIGNATURE) {
    try {
      await identity.verifyPeerChain({ domain, chainDer }, now);
    } catch (error) {
      return error instanceof PeerRefused ? error : new PeerRefused("protocol", messageOf(error));
    }
  }
  return new PeerRefused(reason, whyOf(chainDer, alert));
}

function whyOf(chainDer: readonly Uint8Array[], alert: number | null): string {
  if (alert === BAD_SIGNATURE) return "TLS was not signed with its key";
  if (alert === null) return "The certificate is refused";
  if (!leafOf(chainDer).forClients) return "It is for servers only (extendedKeyUsage lacks clientAuth)";
  return `TLS refuses it with alert ${alert}`;
}

/**
 * Why a connection to `domain` was refused here, if its certificate was; null: something else went wrong, or our own
 * certificate was refused there.
 */
export async function refusalOfResponder(
  identity: FederationIdentity,
  { error, domain, now }: { error: unknown; domain: string; now: number },
): Promise<PeerRefused | null> {
  if (!(error instanceof ConnectError) || !error.refused) return null;
  return await refusalOfCertificate(identity, { ...error.refused, domain, now });
}

/** Counts and logs an initiator that TLS has refused, before it could say who it is: by the name in its certificate. */
export async function reportRefusedInitiator(
  refusals: RefusalLog,
  identity: FederationIdentity,
  { from, now, ...refused }: RefusedCertificate & { from: NetAddress; now: number },
): Promise<void> {
  const domain = claimedIn(refused.chainDer);
  const refusal = await refusalOfCertificate(identity, { ...refused, domain: domain ?? "", now });
  refusals.report(refusal, domain ?? maskAddress(from.hostname));
}

function claimedIn(chainDer: readonly Uint8Array[]): string | null {
  try {
    return leafOf(chainDer).names.find((name) => tryNormaliseDomain(name) === name) ?? null;
  } catch {
    return null; // refused as one that cannot be read
  }
}

function leafOf(chainDer: readonly Uint8Array[]): CertificateInfo {
  return inspectCertificate(chainPem(chainDer.slice(0, 1)));
}

/** By engine `deno`'s words, which are all that it says; null: something else went wrong. */
export function refusalOfWords(error: unknown): PeerRefused | null {
  if (!(error instanceof ConnectError) || error.problem !== "certificate") return null;
  const text = `${error.message} ${messageOf(error.cause)}`;
  const reason = /NotValidForName|not valid for name/i.test(text)
    ? "wrong_name"
    : /expired|not valid yet/i.test(text)
    ? "expired"
    : /UnknownIssuer|BadSignature|not signed by a CA/i.test(text)
    ? "unknown_ca"
    : "protocol";
  return new PeerRefused(reason, error.message, { cause: error });
}
