/** The suite ristretto255 with @serenity-kit/opaque (RFC 9807). */
import * as opaque from "@serenity-kit/opaque";
import { base64url, fromBase64url } from "../base/bytes.ts";
import { CLIENT_KEY_STRETCHING } from "../base/opaque_suite.ts";
import type { ClientSuite } from "./opaque_side.ts";

/**
 * How OPAQUE stretches a password on this side. It is sealed into the record: a login has to name what the
 * registration named. Only for passwords that cannot be guessed may it be less than the default.
 */
export type KeyStretching = NonNullable<Parameters<typeof opaque.client.finishLogin>[0]["keyStretching"]>;

/** The suite; it waits for the library's WebAssembly. */
export async function ristretto255(
  keyStretching: KeyStretching = CLIENT_KEY_STRETCHING,
): Promise<ClientSuite> {
  await opaque.ready;
  return {
    startRecord: (password) => Promise.resolve(startRecord(password, keyStretching)),
    startLogin: (password) => Promise.resolve(startLogin(password, keyStretching)),
  };
}

function startRecord(
  password: string,
  keyStretching: KeyStretching,
): Awaited<ReturnType<ClientSuite["startRecord"]>> {
  const { clientRegistrationState, registrationRequest } = opaque.client.startRegistration({ password });
  return {
    request: fromBase64url(registrationRequest),
    async finish(response, realmId) {
      const finished = opaque.client.finishRegistration({
        password,
        clientRegistrationState,
        registrationResponse: base64url(response),
        identifiers: { server: realmId },
        keyStretching,
      });
      return {
        registrationRecord: fromBase64url(finished.registrationRecord),
        exportKey: fromBase64url(finished.exportKey),
      };
    },
  };
}

function startLogin(
  password: string,
  keyStretching: KeyStretching,
): Awaited<ReturnType<ClientSuite["startLogin"]>> {
  const { clientLoginState, startLoginRequest } = opaque.client.startLogin({ password });
  return {
    ke1: fromBase64url(startLoginRequest),
    async finish(ke2, realmId) {
      const finished = opaque.client.finishLogin({
        password,
        clientLoginState,
        loginResponse: base64url(ke2),
        identifiers: { server: realmId },
        keyStretching,
      });
      return finished
        ? {
          ke3: fromBase64url(finished.finishLoginRequest),
          sessionKey: fromBase64url(finished.sessionKey),
          exportKey: fromBase64url(finished.exportKey),
        }
        : null;
    },
  };
}
