/**
 * The suite P-256 with @cloudflare/opaque-ts (draft-irtf-cfrg-opaque-07), stretched by the library's scrypt (N 32,768,
 * r 8, p 1). Only loaded when a person allowed it; session.ts says when it is used.
 */
import {
  getOpaqueConfig,
  KE2,
  OpaqueClient,
  OpaqueID,
  RegistrationResponse,
  ScryptMemHardFn,
} from "@cloudflare/opaque-ts";
import { QpqError } from "../base/errors.ts";
import type { ClientSuite, LoginStart, RecordStart } from "./opaque_side.ts";

const config = getOpaqueConfig(OpaqueID.OPAQUE_P256);

/** The suite. */
export const p256: ClientSuite = { startRecord, startLogin };

async function startRecord(password: string): Promise<RecordStart> {
  const client = new OpaqueClient(config, ScryptMemHardFn);
  const request = sure(await client.registerInit(password));
  return {
    request: Uint8Array.from(request.serialize()),
    async finish(response, realmId) {
      const decoded = decode(() => RegistrationResponse.deserialize(config, [...response]));
      const { record, export_key } = sure(await client.registerFinish(decoded, realmId));
      return {
        registrationRecord: Uint8Array.from(record.serialize()),
        exportKey: Uint8Array.from(export_key),
      };
    },
  };
}

async function startLogin(password: string): Promise<LoginStart> {
  const client = new OpaqueClient(config, ScryptMemHardFn);
  const ke1 = sure(await client.authInit(password));
  return {
    ke1: Uint8Array.from(ke1.serialize()),
    async finish(ke2, realmId) {
      const decoded = decode(() => KE2.deserialize(config, [...ke2]));
      const finished = await client.authFinish(decoded, realmId);
      if (finished instanceof Error) return null; // the envelope or the server's MAC does not verify
      return {
        ke3: Uint8Array.from(finished.ke3.serialize()),
        sessionKey: Uint8Array.from(finished.session_key),
        exportKey: Uint8Array.from(finished.export_key),
      };
    },
  };
}

/** The library returns its errors. */
function sure<T>(result: T | Error): T {
  if (result instanceof Error) throw new QpqError("internal", `OPAQUE failed: ${result.message}`);
  return result;
}

function decode<T>(read: () => T): T {
  try {
    return read();
  } catch (cause) {
    throw new QpqError("internal", "Cannot read the server's OPAQUE message", { cause });
  }
}
