/**
 * Joining a group by a Welcome (RFC 9420 §12.4.3.1) out of the parts that ts-mls exports. It stands in for the
 * package's own joinGroup, which refuses valid trees (see mls_tree.ts), and checks the path secret as well.
 */
import type {
  CiphersuiteImpl,
  ClientConfig,
  ClientState,
  Extension,
  GroupInfo,
  KeyPackage,
  PrivateKeyPackage,
  PskIndex,
  RatchetTree,
  Welcome,
} from "ts-mls";
import { emptyPskIndex } from "ts-mls";
import { deriveSecret } from "ts-mls/crypto/kdf.js";
import { extensionsSupportedByCapabilities } from "ts-mls/extension.js";
import {
  ratchetTreeFromExtension,
  verifyGroupInfoConfirmationTag,
  verifyGroupInfoSignature,
} from "ts-mls/groupInfo.js";
import { makeKeyPackageRef } from "ts-mls/keyPackage.js";
import { deriveKeySchedule } from "ts-mls/keySchedule.js";
import { pathToRoot } from "ts-mls/pathSecrets.js";
import { accumulatePskSecret } from "ts-mls/pskIndex.js";
import { findLeafIndex } from "ts-mls/ratchetTree.js";
import { createSecretTree } from "ts-mls/secretTree.js";
import { leafWidth, toLeafIndex } from "ts-mls/treemath.js";
import { firstCommonAncestor } from "ts-mls/updatePath.js";
import { decryptGroupInfo, decryptGroupSecrets } from "ts-mls/welcome.js";
import { equal } from "../base/bytes.ts";
import { MlsError } from "./mls_error.ts";
import { nodeOfLeaf, validateTree } from "./mls_tree.ts";

/** What a Welcome is opened with. */
export interface JoinOptions {
  readonly keyPackage: KeyPackage;
  readonly privateKeys: PrivateKeyPackage;
  readonly implementation: CiphersuiteImpl;
  readonly clientConfig: ClientConfig;
  /** External pre-shared keys; this client uses none. */
  readonly pskIndex?: PskIndex;
  /** The tree, when the Welcome does not carry it. */
  readonly ratchetTree?: RatchetTree;
}

/** A joined group. */
export interface Joined {
  readonly state: ClientState;
  /** Extensions of the GroupInfo, as its signer made them. */
  readonly extensions: readonly Extension[];
  /** Leaf of the member who made the Welcome. */
  readonly signerLeafIndex: number;
}

function refuse(reason: string): never {
  throw new MlsError("invalid", `Cannot join by this Welcome as ${reason}`);
}

/** Opens a Welcome and checks everything in it. Throws MlsError, or whatever the cryptography throws. */
export async function joinByWelcome(welcome: Welcome, options: JoinOptions): Promise<Joined> {
  const { keyPackage, privateKeys, implementation, clientConfig } = options;
  const { kdf, hpke } = implementation;
  const ref = await makeKeyPackageRef(keyPackage, implementation.hash);
  const initKey = await hpke.importPrivateKey(privateKeys.initPrivateKey);
  const secrets = await decryptGroupSecrets(initKey, ref, welcome, hpke) ??
    refuse("its group secrets cannot be read");
  const [pskSecret] = await accumulatePskSecret(
    secrets.psks,
    options.pskIndex ?? emptyPskIndex,
    implementation,
    new Uint8Array(kdf.size),
  );
  const groupInfo = await decryptGroupInfo(welcome, secrets.joinerSecret, pskSecret, implementation) ??
    refuse("its GroupInfo cannot be read");
  const { groupContext } = groupInfo;
  if (groupContext.version !== "mls10" || groupContext.cipherSuite !== keyPackage.cipherSuite) {
    refuse("the group has another version or suite than the KeyPackage");
  }
  if (!extensionsSupportedByCapabilities(groupContext.extensions, keyPackage.leafNode.capabilities)) {
    refuse("the group uses an extension that this client does not know");
  }
  const tree = ratchetTreeFromExtension(groupInfo) ?? options.ratchetTree ?? refuse("it has no ratchet tree");
  await checkSigner(groupInfo, tree, implementation);
  const { authService } = clientConfig;
  await validateTree(tree, { groupContext, authService, implementation });
  const ownLeaf = findLeafIndex(tree, keyPackage.leafNode) ?? refuse("this device is not in the tree");
  const pathKeys = secrets.pathSecret &&
    await pathPrivateKeys(tree, {
      secret: secrets.pathSecret,
      ownLeaf,
      signer: groupInfo.signer,
      implementation,
    });

  const [keySchedule, encryptionSecret] = await deriveKeySchedule(
    secrets.joinerSecret,
    pskSecret,
    groupContext,
    kdf,
  );
  if (!await verifyGroupInfoConfirmationTag(groupInfo, secrets.joinerSecret, pskSecret, implementation)) {
    refuse("the confirmation tag is wrong");
  }
  const secretTree = await createSecretTree(leafWidth(tree.length), encryptionSecret, kdf);
  secrets.joinerSecret.fill(0);
  encryptionSecret.fill(0);
  const state: ClientState = {
    groupContext,
    ratchetTree: tree,
    privatePath: {
      leafIndex: ownLeaf,
      privateKeys: { ...pathKeys, [nodeOfLeaf(ownLeaf)]: privateKeys.hpkePrivateKey },
    },
    signaturePrivateKey: privateKeys.signaturePrivateKey,
    confirmationTag: groupInfo.confirmationTag,
    unappliedProposals: {},
    keySchedule,
    secretTree,
    historicalReceiverData: new Map(),
    groupActiveState: { kind: "active" },
    clientConfig,
  };
  return { state, extensions: groupInfo.extensions, signerLeafIndex: groupInfo.signer };
}

async function checkSigner(groupInfo: GroupInfo, tree: RatchetTree, implementation: CiphersuiteImpl) {
  const node = tree[nodeOfLeaf(groupInfo.signer)];
  if (node?.nodeType !== "leaf") refuse("its signer is not in the tree");
  const { signaturePublicKey } = node.leaf;
  if (!await verifyGroupInfoSignature(groupInfo, signaturePublicKey, implementation.signature)) {
    refuse("its signature is wrong");
  }
}

interface PathOptions {
  readonly secret: Uint8Array;
  readonly ownLeaf: number;
  readonly signer: number;
  readonly implementation: CiphersuiteImpl;
}

/** Private keys by node index, from the common ancestor up; each must fit the public key in the tree. */
async function pathPrivateKeys(tree: RatchetTree, options: PathOptions): Promise<Record<number, Uint8Array>> {
  const { kdf, hpke } = options.implementation;
  const start = firstCommonAncestor(tree, toLeafIndex(options.ownLeaf), toLeafIndex(options.signer));
  const secrets = await pathToRoot(tree, start, options.secret, kdf);
  const keys: Record<number, Uint8Array> = {};
  for (const [index, secret] of Object.entries(secrets)) {
    const node = tree[Number(index)];
    if (node?.nodeType !== "parent") continue; // a root above an empty half has a secret and no key
    const pair = await hpke.deriveKeyPair(await deriveSecret(secret, "node", kdf));
    if (!equal(await hpke.exportPublicKey(pair.publicKey), node.parent.hpkePublicKey)) {
      refuse(`its path secret does not fit node ${index}`);
    }
    keys[Number(index)] = await hpke.exportPrivateKey(pair.privateKey);
  }
  return keys;
}
