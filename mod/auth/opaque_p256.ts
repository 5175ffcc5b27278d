/**
 * The suite P-256 with @cloudflare/opaque-ts (draft-irtf-cfrg-opaque-07): expensive (0.1 s of processor a login), not
 * constant time, not audited; off unless `opaque.suites` names it. A setup is `oprf_seed ‖ private key ‖ public key ‖
 * dummy public key`. The library checks no points, so this does, before any work is done on them.
 */
import {
  ExpectedAuthResult,
  getOpaqueConfig,
  KE1,
  OpaqueID,
  OpaqueServer,
  RegistrationRecord,
  RegistrationRequest,
} from "@cloudflare/opaque-ts";
import { type Bytes, concat, equalConstantTime, randomBytes } from "../base/bytes.ts";
import { isP256Point, P256_POINT_BYTES } from "./p256_point.ts";
import type { OpaqueAnswer, OpaqueJob, ServerSuite } from "./opaque_job.ts";

const SEED_BYTES = 32;
const PRIVATE_KEY_BYTES = 32;
const MASKING_KEY_BYTES = 32;
const ENVELOPE_BYTES = 64;
/** KE1 is a point, a nonce of 32 bytes, a point. */
const KE1_KEY_SHARE_AT = P256_POINT_BYTES + 32;
const DUMMY_KEY_AT = SEED_BYTES + PRIVATE_KEY_BYTES + P256_POINT_BYTES;

const config = getOpaqueConfig(OpaqueID.OPAQUE_P256);

/** The suite. */
export function openP256(): ServerSuite {
  return { answer };
}

async function answer(job: OpaqueJob): Promise<OpaqueAnswer> {
  try {
    return await run(job);
  } catch (error) {
    return { status: "failed", message: error instanceof Error ? error.message : String(error) };
  }
}

async function run(job: OpaqueJob): Promise<OpaqueAnswer> {
  switch (job.kind) {
    case "createSetup": {
      const own = await config.ake.generateAuthKeyPair();
      const dummy = await config.ake.generateAuthKeyPair();
      const keys = [own.private_key, own.public_key, dummy.public_key].map((key) => Uint8Array.from(key));
      return ok(concat(randomBytes(SEED_BYTES), ...keys));
    }
    case "registrationResponse": {
      if (!isP256Point(job.request)) return { status: "malformed" };
      const request = RegistrationRequest.deserialize(config, [...job.request]);
      const response = await serverOf(job.setup, undefined).registerInit(request, job.userName);
      if (response instanceof Error) throw response;
      return ok(response.serialize());
    }
    case "checkRecord":
      return isP256Point(job.record.subarray(0, P256_POINT_BYTES)) ? ok() : { status: "malformed" };
    case "loginStart":
      return await loginStart(job);
    case "loginFinish": {
      // Comparing needs no key of the server: what the state holds is compared with what has come.
      const { expected_client_mac, session_key } = ExpectedAuthResult.deserialize(config, [...job.state]);
      return equalConstantTime(job.ke3, expected_client_mac) ? ok(session_key) : { status: "rejected" };
    }
  }
}

async function loginStart(job: Extract<OpaqueJob, { kind: "loginStart" }>): Promise<OpaqueAnswer> {
  const blinded = job.ke1.subarray(0, P256_POINT_BYTES);
  if (!isP256Point(blinded) || !isP256Point(job.ke1.subarray(KE1_KEY_SHARE_AT))) {
    return { status: "malformed" };
  }
  const record = RegistrationRecord.deserialize(config, [...(job.record ?? fakeRecord(job.setup))]);
  const server = serverOf(job.setup, job.realmId);
  const started = await server.authInit(KE1.deserialize(config, [...job.ke1]), record, job.userName);
  if (started instanceof Error) throw started;
  return ok(started.expected.serialize(), started.ke2.serialize());
}

/**
 * The record of nobody (draft 07 §6.3.2.2): a fresh masking key makes the masked response random, as it is for a
 * record; the public key only goes into what nobody can verify, so the setup's one does for all.
 */
function fakeRecord(setup: Uint8Array): Bytes {
  const dummyKey = setup.subarray(DUMMY_KEY_AT, DUMMY_KEY_AT + P256_POINT_BYTES);
  return concat(dummyKey, randomBytes(MASKING_KEY_BYTES), new Uint8Array(ENVELOPE_BYTES));
}

function serverOf(setup: Uint8Array, realmId: string | undefined): OpaqueServer {
  const at = SEED_BYTES + PRIVATE_KEY_BYTES;
  const keys = {
    private_key: [...setup.subarray(SEED_BYTES, at)],
    public_key: [...setup.subarray(at, DUMMY_KEY_AT)],
  };
  return new OpaqueServer(config, [...setup.subarray(0, SEED_BYTES)], keys, realmId);
}

function ok(...output: readonly (readonly number[] | Uint8Array)[]): OpaqueAnswer {
  return { status: "ok", output: output.map((bytes) => Uint8Array.from(bytes)) };
}
