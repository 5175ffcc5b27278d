/** What a suite has to do for session.ts: OPAQUE's client side. Nothing is kept but what is between two steps. */
import type { Bytes } from "../base/bytes.ts";

/** The client's half of a registration record. */
export interface RecordStart {
  readonly request: Bytes;
  finish(response: Uint8Array, realmId: string): Promise<{ registrationRecord: Bytes; exportKey: Bytes }>;
}

/** The client's half of a login. `finish` gives null for a wrong name or password. */
export interface LoginStart {
  readonly ke1: Bytes;
  finish(ke2: Uint8Array, realmId: string): Promise<
    { ke3: Bytes; sessionKey: Bytes; exportKey: Bytes } | null
  >;
}

/** The client's side of one suite. `password` is in NFC and not empty. */
export interface ClientSuite {
  startRecord(password: string): Promise<RecordStart>;
  startLogin(password: string): Promise<LoginStart>;
}
