/** When an announced certificate begins to serve. Both are read from the certificates: nothing else is kept. */
import { BACKDATE_MS, type CertificateInfo } from "../transport/tls.ts";

const DAY_MS = 86_400_000;

/** A certificate is announced for this long, so that clients that pin the old one learn of it in time. */
export const ANNOUNCE_MS = 7 * DAY_MS;
/** The present one is replaced this long before its end, announced or not. */
const LAST_MS = DAY_MS;

/** When `next` serves: a week after it was made, at the latest a day before the end of `current`. Unix ms. */
export function servesAt(next: CertificateInfo, current: CertificateInfo): number {
  return servesAtIfMade(next.notBefore + BACKDATE_MS, current);
}

/** The same for a certificate that is made at `madeAt`. */
export function servesAtIfMade(madeAt: number, current: CertificateInfo): number {
  return Math.min(madeAt + ANNOUNCE_MS, current.notAfter - LAST_MS);
}
