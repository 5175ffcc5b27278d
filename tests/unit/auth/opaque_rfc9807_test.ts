/**
 * RFC 9807 appendix C (ristretto255-SHA512) against the server side in opaque.ts.
 *
 * Byte for byte: RegistrationResponse (C.1.1, C.1.2); of KE2 the evaluated message, and the masked response once
 * unmasked with the vector's masking key and the nonce that was drawn (C.1.1, C.1.2, and C.2.1 with its fake
 * record). The library draws nonces and key shares itself and has an empty context, so the vectors' other bytes
 * of KE2, KE3 and the session key cannot come out of it. For those a client written from the RFC is first proven
 * by the vectors (record, KE1, KE3, session key, export key) and then registers and logs in at our server.
 * Not covered: the library's client side, whose key stretching is never the vectors' identity; that it agrees
 * with the server is in opaque_test.ts.
 */
import assert from "node:assert/strict";
import { OpaquePool } from "../../../mod/auth/opaque.ts";
import {
  type Bytes,
  concat,
  equal,
  fromHex,
  hex,
  randomBytes,
  utf8,
  utf8Text,
} from "../../../mod/base/bytes.ts";
import { SUITE_RISTRETTO255 as suiteId } from "../../../mod/base/opaque_suite.ts";
import { blindPassword, finishLogin, type Identities } from "../../support/opaque_reference.ts";
import { type LoginSecrets, makeKe1, makeRecord, unmask } from "../../support/opaque_reference.ts";
import vectors from "../../fixtures/opaque/rfc9807_ristretto255.json" with { type: "json" };

type Vector = { inputs: Record<string, string>; outputs: Record<string, string> };

const REAL = vectors.filter((vector) => vector.config.Fake === "False") as unknown as Vector[];
const FAKE = vectors.filter((vector) => vector.config.Fake === "True") as unknown as Vector[];

/** A vector's value as bytes. */
function bytesOf(values: Record<string, string>, name: string): Bytes {
  const value = values[name];
  assert.ok(value, `The vector has no ${name}`);
  return fromHex(value);
}

/** The library's setup made of a vector's: `oprf_seed ‖ server_private_key ‖ dummy key`. */
function setupOf({ inputs }: Vector): Bytes {
  const dummy = bytesOf(inputs, "server_public_key"); // any point: only used for unknown users
  return concat(bytesOf(inputs, "oprf_seed"), bytesOf(inputs, "server_private_key"), dummy);
}

function identitiesOf({ inputs }: Vector): { userName: string; realmId: string } {
  const server = inputs["server_identity"] ?? inputs["server_public_key"]!;
  return {
    userName: utf8Text(bytesOf(inputs, "credential_identifier")),
    realmId: inputs["server_identity"] ? utf8Text(fromHex(server)) : "no name",
  };
}

/** A reference client with the vector's randomness. */
function referenceOf({ inputs }: Vector) {
  const secrets: LoginSecrets = {
    password: bytesOf(inputs, "password"),
    blind: bytesOf(inputs, "blind_login"),
    nonce: bytesOf(inputs, "client_nonce"),
    keyshareSeed: bytesOf(inputs, "client_keyshare_seed"),
  };
  const identities: Identities = {
    ...(inputs["client_identity"] ? { client: fromHex(inputs["client_identity"]) } : {}),
    ...(inputs["server_identity"] ? { server: fromHex(inputs["server_identity"]) } : {}),
  };
  return { secrets, identities };
}

Deno.test("the fixtures are the three ristretto255 vectors", () => {
  assert.equal(REAL.length, 2);
  assert.equal(FAKE.length, 1);
});

Deno.test("registrationResponse() gives the RFC's responses", async () => {
  await using pool = await OpaquePool.open({ workers: 1, pendingMax: 8 });
  for (const vector of REAL) {
    const { userName } = identitiesOf(vector);
    const request = bytesOf(vector.outputs, "registration_request");
    const response = await pool.registrationResponse({ suiteId, setup: setupOf(vector), userName, request });
    assert.equal(hex(response), vector.outputs["registration_response"]);
  }
});

Deno.test("loginStart() takes the RFC's records and KE1, and its KE2 holds the RFC's credential response", async () => {
  await using pool = await OpaquePool.open({ workers: 1, pendingMax: 8 });
  for (const vector of REAL) {
    const record = bytesOf(vector.outputs, "registration_upload");
    const setup = setupOf(vector);
    await pool.checkRecord({ suiteId, setup, record });
    const ke1 = bytesOf(vector.outputs, "KE1");
    const { ke2 } = await pool.loginStart({ suiteId, setup, record, ke1, ...identitiesOf(vector) });
    const expected = bytesOf(vector.outputs, "KE2");
    assert.equal(ke2.length, expected.length);
    assert.equal(hex(ke2.subarray(0, 32)), hex(expected.subarray(0, 32)), "evaluated message");
    const maskingKey = record.subarray(32, 96);
    assert.equal(hex(unmask(ke2, maskingKey)), hex(unmask(expected, maskingKey)), "server key and envelope");
  }
});

Deno.test("loginStart() of the RFC's fake record gives its evaluated message and an envelope of zeros", async () => {
  await using pool = await OpaquePool.open({ workers: 1, pendingMax: 8 });
  for (const vector of FAKE) {
    const { inputs, outputs } = vector;
    const maskingKey = bytesOf(inputs, "masking_key");
    const record = concat(bytesOf(inputs, "client_public_key"), maskingKey, new Uint8Array(96));
    const input = { suiteId, setup: setupOf(vector), ke1: bytesOf(inputs, "KE1"), ...identitiesOf(vector) };
    const expected = bytesOf(outputs, "KE2");
    const { ke2 } = await pool.loginStart({ ...input, record });
    assert.equal(hex(ke2.subarray(0, 32)), hex(expected.subarray(0, 32)), "evaluated message");
    assert.equal(hex(unmask(ke2, maskingKey)), hex(unmask(expected, maskingKey)), "server key and zeros");
    // The library's own fake record: the same OPRF part, a masking key of its own.
    const unknown = await pool.loginStart({ ...input, record: null });
    assert.equal(hex(unknown.ke2.subarray(0, 32)), hex(expected.subarray(0, 32)));
    assert.equal(unknown.ke2.length, expected.length);
  }
});

Deno.test("registrationResponse() depends on seed and name", async () => {
  await using pool = await OpaquePool.open({ workers: 1, pendingMax: 8 });
  const vector = REAL[0]!;
  const request = bytesOf(vector.outputs, "registration_request");
  const setup = setupOf(vector);
  const other = await pool.registrationResponse({ suiteId, setup, userName: "1235", request });
  assert.notEqual(hex(other), vector.outputs["registration_response"]);
});

Deno.test("the reference client gives the RFC's record, KE1, KE3 and keys", () => {
  for (const vector of REAL) {
    const { inputs, outputs } = vector;
    const { secrets, identities } = referenceOf(vector);
    const { password } = secrets;
    const blind = bytesOf(inputs, "blind_registration");
    assert.equal(hex(blindPassword(password, blind)), outputs["registration_request"]);
    const response = bytesOf(outputs, "registration_response");
    const envelopeNonce = bytesOf(inputs, "envelope_nonce");
    const { record, exportKey } = makeRecord({ password, blind, response, envelopeNonce, identities });
    assert.equal(hex(record), outputs["registration_upload"]);
    assert.equal(hex(exportKey), outputs["export_key"]);
    assert.equal(hex(makeKe1(secrets)), outputs["KE1"]);
    const context = fromHex("4f50415155452d504f43");
    const finished = finishLogin(secrets, { ke2: bytesOf(outputs, "KE2"), identities, context });
    assert.ok(finished);
    assert.equal(hex(finished.ke3), outputs["KE3"]);
    assert.equal(hex(finished.sessionKey), outputs["session_key"]);
    assert.equal(hex(finished.exportKey), outputs["export_key"]);
  }
});

Deno.test("the reference client registers and logs in at our server, and both have one session key", async () => {
  await using pool = await OpaquePool.open({ workers: 1, pendingMax: 8 });
  const setup = await pool.createSetup(suiteId);
  const [userName, realmId, password] = ["alice", "realm", utf8("right")];
  const identities = { server: utf8(realmId) };
  const context = concat();
  const scalar = () => concat(randomBytes(31), Uint8Array.of(0)); // below the group's order
  const blind = scalar();
  const request = blindPassword(password, blind);
  const response = await pool.registrationResponse({ suiteId, setup, userName, request });
  const registration = { password, blind, response, envelopeNonce: randomBytes(32), identities };
  const { record, exportKey } = makeRecord(registration);
  for (const typed of [password, utf8("wrong")]) {
    const secrets = {
      password: typed,
      blind: scalar(),
      nonce: randomBytes(32),
      keyshareSeed: randomBytes(32),
    };
    const input = { suiteId, setup, userName, record, ke1: makeKe1(secrets), realmId };
    const { state, ke2 } = await pool.loginStart(input);
    const finished = finishLogin(secrets, { ke2, identities, context });
    assert.equal(finished !== null, typed === password);
    if (!finished) continue;
    assert.ok(equal(finished.exportKey, exportKey));
    const sessionKey = await pool.loginFinish({ suiteId, state, ke3: finished.ke3, realmId });
    assert.ok(sessionKey && equal(sessionKey, finished.sessionKey));
  }
});
