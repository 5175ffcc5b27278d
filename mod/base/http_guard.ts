/**
 * What our HTTP listeners share against browsers that another site leads to them: which names a request may call the
 * server by (DNS rebinding makes a site's own name lead here), that no page of another origin asks, and the headers
 * that keep answers out of caches, frames and other sites' pages.
 */

/** Headers of every answer. */
export const GUARD_HEADERS: Readonly<Record<string, string>> = {
  "cache-control": "no-store",
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "no-referrer",
};

/** Why a request is not answered. */
export interface Refusal {
  readonly status: number;
  readonly text: string;
}

/**
 * Judges where a request comes from; null when it may be answered. Addresses, names without a dot (this machine's, a
 * container's) and `names` are ours: a site on the internet can have none of them.
 */
export function refuseForeign(request: Request, names: readonly string[]): Refusal | null {
  const url = URL.parse(request.url);
  if (!url) return { status: 400, text: "the request's path or Host is malformed" };
  const { host, hostname } = url;
  if (!isOurs(hostname.toLowerCase().replace(/\.$/, ""), names)) {
    return { status: 421, text: `this server is not called ${hostname.slice(0, 253)}` };
  }
  const origin = request.headers.get("origin");
  if (origin !== null && origin !== `http://${host}`) {
    return { status: 403, text: "not for pages of another origin" };
  }
  return null;
}

function isOurs(hostname: string, names: readonly string[]): boolean {
  const isAddress = /^\d+\.\d+\.\d+\.\d+$/.test(hostname) || hostname.startsWith("[");
  return isAddress || !hostname.includes(".") || names.some((name) => name.toLowerCase() === hostname);
}
