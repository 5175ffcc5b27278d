/** MLS ciphersuites that this program supports; their numbers are those on the wire (RFC 9420 §17.1). */

/** MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519: what everybody must have. */
export const MLS_SUITE_X25519 = 1;

/** MLS_256_XWING_AES256GCM_SHA512_Ed25519: post-quantum hybrid, experimental; the number is ts-mls' own. */
export const MLS_SUITE_XWING = 83;

/** All supported suites by number; both sign with Ed25519. */
export const MLS_SUITES = {
  [MLS_SUITE_X25519]: { name: "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519", hash: "SHA-256" },
  [MLS_SUITE_XWING]: { name: "MLS_256_XWING_AES256GCM_SHA512_Ed25519", hash: "SHA-512" },
} as const;

/** Number of a supported suite. */
export type MlsSuite = keyof typeof MLS_SUITES;

/** Is `suite` the number of a supported suite? */
export function isMlsSuite(suite: number): suite is MlsSuite {
  return suite === MLS_SUITE_X25519 || suite === MLS_SUITE_XWING;
}
