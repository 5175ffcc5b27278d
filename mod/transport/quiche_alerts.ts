/** TLS alerts as quiche reports them: codes of connections that ended, which certificates they are about, in words. */
import type { RefusedCertificate } from "./connect_error.ts";

/** An alert's code is this and the alert (RFC 9001 §4.8). */
const CRYPTO_ERROR = 0x100;
/** Alerts about a certificate that was shown (RFC 8446 §6.2), in words. */
const CERTIFICATE_ALERTS: ReadonlyMap<number, string> = new Map([
  [42, "it is not for this name, or cannot be used"],
  [43, "it is not made for this use"],
  [44, "it is revoked"],
  [45, "it has expired"],
  [46, "it cannot be used"],
  [48, "it is not signed by a CA that is trusted here"],
  [51, "it was shown by somebody who does not have its key"],
  [116, "there is none"],
]);

/** How a connection of quiche ended. */
export interface QuicheFailure {
  readonly code: number;
  readonly isApp: boolean;
  readonly byPeer: boolean;
}

/** The alert about a certificate that ended a connection; null when it was something else. */
export function certificateAlert({ code, isApp }: QuicheFailure): number | null {
  const alert = code - CRYPTO_ERROR;
  return !isApp && CERTIFICATE_ALERTS.has(alert) ? alert : null;
}

/** What an alert finds wrong with a certificate. */
export function alertText(alert: number): string {
  return `${CERTIFICATE_ALERTS.get(alert) ?? "it is refused"} (TLS alert ${alert})`;
}

/** The peer's certificate, if this side has ended the connection over it. */
export function refusedCertificate(
  { failure, peerChainDer }: {
    failure: QuicheFailure | undefined;
    peerChainDer: readonly Uint8Array[] | null;
  },
): RefusedCertificate | null {
  if (!failure || failure.byPeer || !peerChainDer?.length) return null;
  const alert = certificateAlert(failure);
  return alert === null ? null : { chainDer: peerChainDer, alert };
}
