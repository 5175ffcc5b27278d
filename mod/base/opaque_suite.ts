/**
 * What client and server must agree on about OPAQUE (RFC 9807): suites, sizes on the wire, key stretching.
 * Both sides use it, so it lives below both.
 */

/** OPAQUE-3DH, ristretto255-SHA512, HKDF-SHA-512, HMAC-SHA-512; key stretching {@link CLIENT_KEY_STRETCHING}. */
export const SUITE_RISTRETTO255 = 1;

/**
 * OPAQUE-3DH of draft-irtf-cfrg-opaque-07, P-256-SHA256, HKDF-SHA-256, HMAC-SHA-256, scrypt (N 32,768, r 8, p 1): for
 * clients that can have nothing else. Weaker than ristretto255: an older draft, not constant time, never audited.
 */
export const SUITE_P256 = 2;

/** Suites of this version, the strongest first. */
export const OPAQUE_SUITES: readonly number[] = [SUITE_RISTRETTO255, SUITE_P256];

/** Names of the suites, for options and people. */
export const OPAQUE_SUITE_NAMES: ReadonlyMap<number, "ristretto255" | "p256"> = new Map([
  [SUITE_RISTRETTO255, "ristretto255"],
  [SUITE_P256, "p256"],
]);

/** Sizes in bytes of the messages of {@link SUITE_RISTRETTO255}. */
export const OPAQUE_BYTES = {
  registrationRequest: 32,
  registrationResponse: 64,
  registrationRecord: 192,
  ke1: 96,
  ke2: 320,
  ke3: 64,
  sessionKey: 64,
  exportKey: 64,
  /** `oprf_seed(64) ‖ server_private_key(32) ‖ dummy_public_key(32)`; never leaves the server. */
  serverSetup: 128,
} as const;

/** Sizes in bytes of a suite's messages. */
export type OpaqueSizes = { readonly [Message in keyof typeof OPAQUE_BYTES]: number };

/** Sizes in bytes of the messages of each suite. KE1 has another size in each: that tells which suite it is of. */
export const OPAQUE_SIZES: ReadonlyMap<number, OpaqueSizes> = new Map<number, OpaqueSizes>([
  [SUITE_RISTRETTO255, OPAQUE_BYTES],
  [SUITE_P256, {
    registrationRequest: 33,
    registrationResponse: 66,
    registrationRecord: 129,
    ke1: 98,
    ke2: 259,
    ke3: 32,
    sessionKey: 32,
    exportKey: 32,
    /** `oprf_seed(32) ‖ server_private_key(32) ‖ server_public_key(33) ‖ dummy_public_key(33)`. */
    serverSetup: 130,
  }],
]);

/** Bytes of the OPRF seed, which a server setup begins with. */
export function oprfSeedBytes(suiteId: number): number {
  return suiteId === SUITE_P256 ? 32 : 64;
}

/**
 * How the client stretches the password: Argon2id with 64 MiB, 3 passes, 4 lanes: the second recommended
 * option of RFC 9106 §4. Measured: 0.15 s. The RFC's first option costs 8 s and 2 GiB for each login, which a
 * telephone or a small container does not have. It is sealed into every record: changing it locks everybody
 * out, so another choice is another suite id.
 */
export const CLIENT_KEY_STRETCHING = "memory-constrained";
