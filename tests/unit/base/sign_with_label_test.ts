/** SignWithLabel against ts-mls, and its bounds. */
import assert from "node:assert/strict";
import { signWithLabel } from "ts-mls/crypto/signature.js";
import { type Bytes, concat, fromHex, hex, utf8 } from "../../../mod/base/bytes.ts";
import { signContent, verifyWithLabel } from "../../../mod/base/sign_with_label.ts";

/** A key pair, and ts-mls' way to sign with it. */
async function makeSigner() {
  const pair = await crypto.subtle.generateKey("Ed25519", true, ["sign", "verify"]) as CryptoKeyPair;
  const publicKey = new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey));
  const implementation = {
    sign: async (_key: Uint8Array, message: Uint8Array) =>
      new Uint8Array(await crypto.subtle.sign("Ed25519", pair.privateKey, message as Bytes)),
    verify: () => Promise.resolve(false),
    keygen: () => Promise.reject(new Error("not used")),
  };
  const sign = (label: string, content: Uint8Array) =>
    signWithLabel(new Uint8Array(), label, content, implementation);
  return { publicKey, sign };
}

Deno.test("signContent() is the SignContent struct of RFC 9420", () => {
  const content = signContent("qpq resume", fromHex("0102"), fromHex("03"));
  assert.equal(hex(content), `12${hex(utf8("MLS 1.0 qpq resume"))}03010203`);
});

Deno.test("signContent() takes contents of up to 16383 bytes", () => {
  for (const [length, prefix] of [[63, "3f"], [64, "4040"], [16383, "7fff"]] as const) {
    const content = signContent("qpq device", new Uint8Array(length));
    assert.equal(hex(content.subarray(19, 19 + prefix.length / 2)), prefix);
    assert.equal(content.length, 19 + prefix.length / 2 + length);
  }
  assert.throws(() => signContent("qpq device", new Uint8Array(16384)), RangeError);
});

Deno.test("verifyWithLabel() takes ts-mls' signatures, for the same label, key and content only", async () => {
  const { publicKey, sign } = await makeSigner();
  const other = await makeSigner();
  for (const length of [0, 63, 64, 3000]) {
    const content = new Uint8Array(length).fill(7);
    const signature = await sign("KeyPackageTBS", content);
    assert.equal(await verifyWithLabel(publicKey, signature, "KeyPackageTBS", content), true);
    assert.equal(await verifyWithLabel(publicKey, signature, "LeafNodeTBS", content), false);
    assert.equal(await verifyWithLabel(other.publicKey, signature, "KeyPackageTBS", content), false);
    const longer = concat(content, Uint8Array.of(7));
    assert.equal(await verifyWithLabel(publicKey, signature, "KeyPackageTBS", longer), false);
  }
});

Deno.test("verifyWithLabel() is false for malformed keys and signatures, and contents that are too long", async () => {
  const { publicKey, sign } = await makeSigner();
  const signature = await sign("qpq device", new Uint8Array(3));
  const verify = (key: Uint8Array, by: Uint8Array, content = new Uint8Array(3)) =>
    verifyWithLabel(key, by, "qpq device", content);
  assert.equal(await verify(publicKey, signature), true);
  for (const key of [new Uint8Array(), publicKey.subarray(1), new Uint8Array(32).fill(255)]) {
    assert.equal(await verify(key, signature), false);
  }
  for (const by of [new Uint8Array(), signature.subarray(1), new Uint8Array(64)]) {
    assert.equal(await verify(publicKey, by), false);
  }
  assert.equal(await verify(publicKey, signature, new Uint8Array(16384)), false);
});
