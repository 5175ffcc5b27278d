/**
 * RFC 9807 appendix C (ristretto255-SHA512) against the server side in opaque.ts.
 *
 * Covered, byte for byte: RegistrationResponse (C.1.1, C.1.2); of KE2 the evaluated message, and the masked
 * response once unmasked with the vector's masking key and the nonce that was drawn (C.1.1, C.1.2, and C.2.1
 * with its fake record). The library draws nonces and key shares itself and knows no other context than the empty
 * one, so the vectors' masking_nonce, server_nonce, key share, MACs, KE3 and session key cannot come out of it.
 * Those of the client's side use the identity as key stretching, which it does not offer either.
 */
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { OpaquePool } from "../../../mod/auth/opaque.ts";
import { type Bytes, concat, fromHex, hex, utf8, utf8Text } from "../../../mod/base/bytes.ts";
import { SUITE_RISTRETTO255 as suiteId } from "../../../mod/base/opaque_suite.ts";
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

/** HKDF-Expand of RFC 5869 with SHA-512. */
function expand(key: Uint8Array, info: Uint8Array, length: number): Bytes {
  let output = concat();
  let block: Uint8Array = new Uint8Array();
  for (let i = 1; output.length < length; i++) {
    block = createHmac("sha512", key).update(block).update(info).update(Uint8Array.of(i)).digest();
    output = concat(output, block);
  }
  return output.slice(0, length);
}

/** `server_public_key ‖ envelope` out of a KE2 (RFC 9807 §6.3.2.2). */
function unmask(ke2: Uint8Array, maskingKey: Uint8Array): Bytes {
  const nonce = ke2.subarray(32, 64);
  const masked = ke2.subarray(64, 64 + 128);
  const pad = expand(maskingKey, concat(nonce, utf8("CredentialResponsePad")), masked.length);
  return masked.map((byte, i) => byte ^ pad[i]!) as Bytes;
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
