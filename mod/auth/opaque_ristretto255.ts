/**
 * The suite ristretto255 with @serenity-kit/opaque (RFC 9807). The library speaks base64url and throws for every bad
 * input; both end here. A failed WebAssembly instance must not answer again: that error is thrown on.
 */
import * as opaque from "@serenity-kit/opaque";
import { base64url, type Bytes, fromBase64url } from "../base/bytes.ts";
import type { OpaqueAnswer, OpaqueJob, ServerSuite } from "./opaque_job.ts";

/** Which failing step of which job is the peer's fault, not the server's. The steps' names are the library's. */
const PEER_FAULTS: ReadonlyMap<string, "malformed" | "rejected"> = new Map([
  ["registrationResponse: deserialize registrationRequest", "malformed"],
  ["checkRecord: deserialize registrationRecord", "malformed"],
  ["loginStart: deserialize startLoginRequest", "malformed"],
  ["loginFinish: deserialize finishLoginRequest", "rejected"],
  ["loginFinish: finish server login", "rejected"],
]);

/** A message of no user, to try records with. */
let probeKe1 = "";

/** Does one job; throws what the library throws. */
function run(job: OpaqueJob): readonly Bytes[] {
  switch (job.kind) {
    case "createSetup":
      return [fromBase64url(opaque.server.createSetup())];
    case "registrationResponse": {
      const { registrationResponse } = opaque.server.createRegistrationResponse({
        serverSetup: base64url(job.setup),
        userIdentifier: job.userName,
        registrationRequest: base64url(job.request),
      });
      return [fromBase64url(registrationResponse)];
    }
    case "checkRecord":
      probeKe1 ||= opaque.client.startLogin({ password: "" }).startLoginRequest;
      opaque.server.startLogin({
        serverSetup: base64url(job.setup),
        userIdentifier: "",
        registrationRecord: base64url(job.record),
        startLoginRequest: probeKe1,
      });
      return [];
    case "loginStart": {
      const { serverLoginState, loginResponse } = opaque.server.startLogin({
        serverSetup: base64url(job.setup),
        userIdentifier: job.userName,
        registrationRecord: job.record && base64url(job.record),
        startLoginRequest: base64url(job.ke1),
        identifiers: { server: job.realmId },
      });
      return [fromBase64url(serverLoginState), fromBase64url(loginResponse)];
    }
    case "loginFinish": {
      const { sessionKey } = opaque.server.finishLogin({
        serverLoginState: base64url(job.state),
        finishLoginRequest: base64url(job.ke3),
        identifiers: { server: job.realmId },
      });
      return [fromBase64url(sessionKey)];
    }
  }
}

/** Does one job; expected failures become answers. */
export function answer(job: OpaqueJob): OpaqueAnswer {
  try {
    return { status: "ok", output: run(job) };
  } catch (error) {
    if (error instanceof WebAssembly.RuntimeError) throw error;
    const message = error instanceof Error ? error.message : String(error);
    const step = /protocol error at "([^"]+)"/.exec(message)?.[1] ?? "";
    const status = PEER_FAULTS.get(`${job.kind}: ${step}`);
    return status ? { status } : { status: "failed", message };
  }
}

/** Loads the library's WebAssembly. */
export async function openRistretto255(): Promise<ServerSuite> {
  await opaque.ready;
  return { answer };
}
