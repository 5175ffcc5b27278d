/**
 * An OPAQUE client (RFC 9807, OPAQUE-3DH with ristretto255-SHA512) written from the RFC, with all randomness
 * and the context given and the identity as key stretching. It is there to be proven by the RFC's vectors and
 * then to meet our server, whose library takes neither: not for use, not constant in time.
 */
import { createHash, createHmac } from "node:crypto";
import { ristretto255, ristretto255_hasher } from "@noble/curves/ed25519.js";
import { type Bytes, concat, copy, equal, utf8 } from "../../mod/base/bytes.ts";

const { Point } = ristretto255;
const HASH_BYTES = 64;
const SUITE = utf8("OPRFV1-\0-ristretto255-SHA512");

function hash(...parts: Uint8Array[]): Bytes {
  return copy(createHash("sha512").update(concat(...parts)).digest());
}

/** HMAC-SHA-512; HKDF-Extract too. */
function mac(key: Uint8Array, ...parts: Uint8Array[]): Bytes {
  return copy(createHmac("sha512", key).update(concat(...parts)).digest());
}

/** HKDF-Expand of RFC 5869 with SHA-512. */
export function expand(key: Uint8Array, info: Uint8Array, length: number): Bytes {
  let output = concat();
  let block: Bytes = concat();
  for (let i = 1; output.length < length; i++) {
    block = mac(key, block, info, Uint8Array.of(i));
    output = concat(output, block);
  }
  return output.slice(0, length);
}

/** I2OSP(length, 2) ‖ bytes. */
function sized(bytes: Uint8Array): Bytes {
  return concat(Uint8Array.of(bytes.length >> 8, bytes.length & 255), bytes);
}

/** Derive-Secret of §6.4.2. */
function deriveSecret(secret: Uint8Array, label: string, transcriptHash: Uint8Array): Bytes {
  const full = utf8(`OPAQUE-${label}`);
  const info = [
    Uint8Array.of(0, HASH_BYTES, full.length),
    full,
    Uint8Array.of(transcriptHash.length),
    transcriptHash,
  ];
  return expand(secret, concat(...info), HASH_BYTES);
}

function scalarOf(bytes: Uint8Array): bigint {
  return BigInt(`0x${copy(bytes).reverse().toHex()}`);
}

/** DeriveDiffieHellmanKeyPair of §6.4.1. */
function deriveKeyPair(seed: Uint8Array): { secret: bigint; publicKey: Bytes } {
  const input = concat(seed, sized(utf8("OPAQUE-DeriveDiffieHellmanKeyPair")), Uint8Array.of(0));
  const secret = ristretto255_hasher.hashToScalar(input, { DST: concat(utf8("DeriveKeyPair"), SUITE) });
  return { secret, publicKey: copy(Point.BASE.multiply(secret).toBytes()) };
}

function diffieHellman(secret: bigint, publicKey: Uint8Array): Bytes {
  return copy(Point.fromBytes(publicKey).multiply(secret).toBytes());
}

/** Blind of RFC 9497: what is sent for `password`. */
export function blindPassword(password: Uint8Array, blind: Uint8Array): Bytes {
  const point = ristretto255_hasher.hashToCurve(password, { DST: concat(utf8("HashToGroup-"), SUITE) });
  return copy(point.multiply(scalarOf(blind)).toBytes());
}

/** Finalize of RFC 9497, then the identity as key stretching: `randomized_password`. */
function randomizedPassword(password: Uint8Array, blind: Uint8Array, evaluated: Uint8Array): Bytes {
  const inverse = Point.Fn.inv(scalarOf(blind));
  const unblinded = Point.fromBytes(evaluated).multiply(inverse).toBytes();
  const output = hash(sized(password), sized(unblinded), utf8("Finalize"));
  return mac(new Uint8Array(), output, output);
}

/** Names of the two sides; their public keys when they have none. */
export interface Identities {
  readonly client?: Uint8Array;
  readonly server?: Uint8Array;
}

/** What an envelope opens to (§4.1). */
function envelopeKeys(
  randomized: Uint8Array,
  input: { nonce: Uint8Array; serverKey: Uint8Array; identities: Identities },
) {
  const { nonce, serverKey, identities } = input;
  const { secret, publicKey } = deriveKeyPair(expand(randomized, concat(nonce, utf8("PrivateKey")), 32));
  const authKey = expand(randomized, concat(nonce, utf8("AuthKey")), 64);
  const client = identities.client ?? publicKey;
  const server = identities.server ?? serverKey;
  const tag = mac(authKey, nonce, serverKey, sized(server), sized(client));
  const exportKey = expand(randomized, concat(nonce, utf8("ExportKey")), 64);
  return { secret, publicKey, tag, exportKey, client, server };
}

/** The registration record, and the export key (§5.2.3). */
export function makeRecord(input: {
  password: Uint8Array;
  blind: Uint8Array;
  response: Uint8Array;
  envelopeNonce: Uint8Array;
  identities: Identities;
}): { record: Bytes; exportKey: Bytes } {
  const { password, blind, response, envelopeNonce: nonce, identities } = input;
  const randomized = randomizedPassword(password, blind, response.subarray(0, 32));
  const keys = envelopeKeys(randomized, { nonce, serverKey: response.subarray(32), identities });
  const maskingKey = expand(randomized, utf8("MaskingKey"), 64);
  return { record: concat(keys.publicKey, maskingKey, nonce, keys.tag), exportKey: keys.exportKey };
}

/** The secrets that a client draws for a login. */
export interface LoginSecrets {
  readonly password: Uint8Array;
  readonly blind: Uint8Array;
  readonly nonce: Uint8Array;
  readonly keyshareSeed: Uint8Array;
}

/** KE1 (§6.3.1). */
export function makeKe1({ password, blind, nonce, keyshareSeed }: LoginSecrets): Bytes {
  return concat(blindPassword(password, blind), nonce, deriveKeyPair(keyshareSeed).publicKey);
}

/** `server_public_key ‖ envelope nonce ‖ envelope tag` out of a KE2 (§6.3.2.2). */
export function unmask(ke2: Uint8Array, maskingKey: Uint8Array): Bytes {
  const masked = ke2.subarray(64, 192);
  const pad = expand(maskingKey, concat(ke2.subarray(32, 64), utf8("CredentialResponsePad")), masked.length);
  return copy(masked.map((byte, i) => byte ^ pad[i]!));
}

/** KE3, session key and export key (§6.3.3, §6.4.3); null when the envelope or the server's MAC is wrong. */
export function finishLogin(
  secrets: LoginSecrets,
  input: { ke2: Uint8Array; identities: Identities; context: Uint8Array },
): { ke3: Bytes; sessionKey: Bytes; exportKey: Bytes } | null {
  const { ke2, identities, context } = input;
  const randomized = randomizedPassword(secrets.password, secrets.blind, ke2.subarray(0, 32));
  const opened = unmask(ke2, expand(randomized, utf8("MaskingKey"), 64));
  const serverKey = opened.subarray(0, 32);
  const keys = envelopeKeys(randomized, { nonce: opened.subarray(32, 64), serverKey, identities });
  if (!equal(keys.tag, opened.subarray(64))) return null;
  const serverShare = ke2.subarray(224, 256);
  const share = deriveKeyPair(secrets.keyshareSeed).secret;
  const shared = [[share, serverShare], [share, serverKey], [keys.secret, serverShare]] as const;
  const preamble = concat(
    utf8("OPAQUEv1-"),
    sized(context),
    sized(keys.client),
    makeKe1(secrets),
    sized(keys.server),
    ke2.subarray(0, 256),
  );
  const extracted = mac(
    new Uint8Array(),
    ...shared.map(([secret, publicKey]) => diffieHellman(secret, publicKey)),
  );
  const sessionKey = deriveSecret(extracted, "SessionKey", hash(preamble));
  const handshake = deriveSecret(extracted, "HandshakeSecret", hash(preamble));
  const serverMac = mac(deriveSecret(handshake, "ServerMAC", new Uint8Array()), hash(preamble));
  if (!equal(serverMac, ke2.subarray(256))) return null;
  const ke3 = mac(deriveSecret(handshake, "ClientMAC", new Uint8Array()), hash(preamble, serverMac));
  return { ke3, sessionKey, exportKey: keys.exportKey };
}
