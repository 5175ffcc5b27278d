/**
 * One OPAQUE worker: answers the jobs of opaque.ts one at a time with @serenity-kit/opaque (RFC 9807,
 * ristretto255). It holds no state between jobs. The library speaks base64url and throws for every bad input;
 * both end here. A failed WebAssembly instance must not answer again: that error is thrown on and ends the
 * worker, which the pool replaces.
 */
import * as opaque from "@serenity-kit/opaque";
import { base64url, type Bytes, fromBase64url } from "../base/bytes.ts";

/** What a worker is asked. Byte strings have been measured before. */
export type OpaqueJob =
  | { readonly kind: "createSetup" }
  | {
    readonly kind: "registrationResponse";
    readonly setup: Uint8Array;
    readonly userName: string;
    readonly request: Uint8Array;
  }
  | { readonly kind: "checkRecord"; readonly setup: Uint8Array; readonly record: Uint8Array }
  | {
    readonly kind: "loginStart";
    readonly setup: Uint8Array;
    readonly userName: string;
    readonly record: Uint8Array | null;
    readonly ke1: Uint8Array;
    readonly realmId: string;
  }
  | {
    readonly kind: "loginFinish";
    readonly state: Uint8Array;
    readonly ke3: Uint8Array;
    readonly realmId: string;
  };

/** `malformed`: the peer's message does not decode. `rejected`: it decodes, but does not verify. */
export type OpaqueAnswer =
  | { readonly status: "ok"; readonly output: readonly Bytes[] }
  | { readonly status: "malformed" | "rejected" }
  | { readonly status: "failed"; readonly message: string };

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

/** Overwrites this worker's copies of secrets; what the library made of them is text, which nothing can overwrite. */
function wipe(job: OpaqueJob): void {
  if ("setup" in job) job.setup.fill(0);
  if ("state" in job) job.state.fill(0);
}

/** Enough of a worker's global scope; the compiler is set up for the main thread. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<OpaqueJob>) => void) | null;
  postMessage(message: unknown): void;
}

/** Serves jobs until the pool ends this worker; the first message out says that it is ready. */
async function serve(scope: WorkerScope): Promise<void> {
  await opaque.ready;
  scope.onmessage = ({ data: job }) => {
    scope.postMessage(answer(job));
    wipe(job);
  };
  scope.postMessage("ready");
}

// Deno has this class only in workers; in the main thread this file is imported for its types and by tests.
if ("WorkerGlobalScope" in globalThis) await serve(globalThis as unknown as WorkerScope);
