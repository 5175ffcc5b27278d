/** Asks the engine itself whether it would serve with a certificate: it knows fewer kinds of keys than checkCertificate. */
import { messageOf } from "../base/errors.ts";
import { ALPN, type ServerCertificate } from "./transport.ts";

/** Why the QUIC engine refuses the pair, in words; null when it does not. */
export function tryCertificate(pair: ServerCertificate): string | null {
  const endpoint = new Deno.QuicEndpoint({ hostname: "127.0.0.1", port: 0 });
  try {
    endpoint.listen({ cert: pair.certificatePem, key: pair.privateKeyPem, alpnProtocols: [ALPN] });
    return null;
  } catch (error) {
    return messageOf(error);
  } finally {
    endpoint.close();
  }
}
