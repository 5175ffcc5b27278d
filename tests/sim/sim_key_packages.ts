/** KeyPackages (RFC 9420 §10) that a server takes, with keys from the seed: nobody has the private ones. */
import "@noble/hashes/sha2.js"; // ts-mls imports it without declaring it
import { encodeKeyPackage, encodeKeyPackageTBS, type KeyPackage } from "ts-mls/keyPackage.js";
import { encodeLeafNodeTBS } from "ts-mls/leafNode.js";
import { type Bytes, concat, copy, fromHex, randomBytes } from "../../mod/base/bytes.ts";
import { MLS_SUITE_X25519, MLS_SUITES } from "../../mod/base/mls_suites.ts";
import { signContent } from "../../mod/base/sign_with_label.ts";
import type { SeededKeyPair } from "./seeded_runtime.ts";

const LIFETIME_S = 30 * 86_400;

/** A new one of this device. */
export function makeKeyPackage(
  owner: { accountId: string; deviceId: string; key: SeededKeyPair },
  now: number,
): Bytes {
  const { name } = MLS_SUITES[MLS_SUITE_X25519];
  const notBefore = BigInt(Math.floor(now / 1000));
  const leaf = {
    leafNodeSource: "key_package" as const,
    hpkePublicKey: randomBytes(32),
    signaturePublicKey: owner.key.publicKey,
    credential: {
      credentialType: "basic" as const,
      identity: concat(fromHex(owner.accountId), fromHex(owner.deviceId)),
    },
    capabilities: {
      versions: ["mls10" as const],
      ciphersuites: [name],
      extensions: [],
      proposals: [],
      credentials: ["basic" as const],
    },
    lifetime: { notBefore, notAfter: notBefore + BigInt(LIFETIME_S) },
    extensions: [],
  };
  const leafNode = {
    ...leaf,
    signature: owner.key.sign(signContent("LeafNodeTBS", encodeLeafNodeTBS(leaf as never))),
  };
  const whole = {
    version: "mls10" as const,
    cipherSuite: name,
    initKey: randomBytes(32),
    leafNode,
    extensions: [],
  };
  const signature = owner.key.sign(signContent("KeyPackageTBS", encodeKeyPackageTBS(whole as never)));
  return copy(encodeKeyPackage({ ...whole, signature } as KeyPackage));
}
