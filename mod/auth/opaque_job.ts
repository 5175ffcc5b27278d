/** What passes between the pool (opaque.ts) and its workers, and what a suite has to do for them. */
import type { Bytes } from "../base/bytes.ts";

/** One step of OPAQUE. Byte strings have been measured before. */
type OpaqueWork =
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

/** What a worker is asked, and in which suite; none: ristretto255. */
export type OpaqueJob = OpaqueWork & { readonly suiteId?: number };

/** `malformed`: the peer's message does not decode. `rejected`: it decodes, but does not verify. */
export type OpaqueAnswer =
  | { readonly status: "ok"; readonly output: readonly Bytes[] }
  | { readonly status: "malformed" | "rejected" }
  | { readonly status: "failed"; readonly message: string };

/** The server's side of one suite. It holds no state between jobs. */
export interface ServerSuite {
  /** Does one job; expected failures become answers. What it throws ends the worker, which the pool replaces. */
  answer(job: OpaqueJob): OpaqueAnswer | Promise<OpaqueAnswer>;
}
