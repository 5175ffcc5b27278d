/** The client's half of OPAQUE for tests, over the same library, with bytes and a cheap key stretching. */
import * as opaque from "@serenity-kit/opaque";
import { base64url, type Bytes, fromBase64url } from "../../mod/base/bytes.ts";

await opaque.ready;

/** Argon2id at its cheapest: what it costs is not what these tests are about. */
const keyStretching = { "argon2id-custom": { iterations: 1, memory: 8, parallelism: 1 } };

/** First half of a registration: the request, and what makes the record from the response. */
export function beginRegistration(
  password: string,
  realmId: string,
): { request: Bytes; finish(response: Uint8Array): { record: Bytes; exportKey: Bytes } } {
  const { clientRegistrationState, registrationRequest } = opaque.client.startRegistration({ password });
  return {
    request: fromBase64url(registrationRequest),
    finish(response) {
      const { registrationRecord, exportKey } = opaque.client.finishRegistration({
        password,
        clientRegistrationState,
        registrationResponse: base64url(response),
        identifiers: { server: realmId },
        keyStretching,
      });
      return { record: fromBase64url(registrationRecord), exportKey: fromBase64url(exportKey) };
    },
  };
}

/** First half of a login: KE1, and what makes KE3 from KE2; null when the password is wrong. */
export function beginLogin(
  password: string,
  realmId: string,
): { ke1: Bytes; finish(ke2: Uint8Array): { ke3: Bytes; sessionKey: Bytes; exportKey: Bytes } | null } {
  const { clientLoginState, startLoginRequest } = opaque.client.startLogin({ password });
  return {
    ke1: fromBase64url(startLoginRequest),
    finish(ke2) {
      const result = opaque.client.finishLogin({
        password,
        clientLoginState,
        loginResponse: base64url(ke2),
        identifiers: { server: realmId },
        keyStretching,
      });
      if (!result) return null;
      return {
        ke3: fromBase64url(result.finishLoginRequest),
        sessionKey: fromBase64url(result.sessionKey),
        exportKey: fromBase64url(result.exportKey),
      };
    },
  };
}
