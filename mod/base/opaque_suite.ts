/**
 * What client and server must agree on about OPAQUE (RFC 9807): suites, sizes on the wire, key stretching.
 * Both sides use it, so it lives below both.
 */

/** OPAQUE-3DH, ristretto255-SHA512, HKDF-SHA-512, HMAC-SHA-512; key stretching {@link CLIENT_KEY_STRETCHING}. */
export const SUITE_RISTRETTO255 = 1;

/** Suites of this version, the preferred one first. */
export const OPAQUE_SUITES: readonly number[] = [SUITE_RISTRETTO255];

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

/**
 * How the client stretches the password: Argon2id with 64 MiB, 3 passes, 4 lanes: the second recommended
 * option of RFC 9106 §4. Measured: 0.15 s. The RFC's first option costs 8 s and 2 GiB for each login, which a
 * telephone or a small container does not have. It is sealed into every record: changing it locks everybody
 * out, so another choice is another suite id.
 */
export const CLIENT_KEY_STRETCHING = "memory-constrained";
