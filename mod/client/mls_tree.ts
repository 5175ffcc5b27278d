/**
 * Validation of a ratchet tree that came with a Welcome (RFC 9420 §12.4.3.1, with §7.3, §7.8 and §7.9.2). Our own:
 * ts-mls 1.6.4 compares whole unmerged_leaves lists where membership is meant, and so refuses valid trees.
 */
import "./mls_packages.ts";
import type {
  AuthenticationService,
  CiphersuiteImpl,
  GroupContext,
  LeafNode,
  Node,
  RatchetTree,
} from "ts-mls";
import { decodeRequiredCapabilities } from "ts-mls";
import { encodeParentHashInput } from "ts-mls/parentHash.js";
import { extensionsSupportedByCapabilities } from "ts-mls/extension.js";
import { verifyLeafNodeSignature, verifyLeafNodeSignatureKeyPackage } from "ts-mls/leafNode.js";
import { removeLeaves, resolution } from "ts-mls/ratchetTree.js";
import {
  directPath,
  isLeaf,
  leafToNodeIndex,
  leafWidth,
  left,
  type NodeIndex,
  nodeToLeafIndex,
  right,
  toLeafIndex,
  toNodeIndex,
} from "ts-mls/treemath.js";
import { treeHash, treeHashRoot } from "ts-mls/treeHash.js";
import { equal, hex } from "../base/bytes.ts";
import { MlsError } from "./mls_error.ts";

/** What the tree must agree with. */
export interface TreeExpectations {
  readonly groupContext: GroupContext;
  readonly authService: AuthenticationService;
  readonly implementation: CiphersuiteImpl;
}

type ParentNode = Extract<Node, { nodeType: "parent" }>["parent"];

function refuse(reason: string): never {
  throw new MlsError("invalid", `Cannot join with this ratchet tree as ${reason}`);
}

function parentAt(tree: RatchetTree, index: number): ParentNode | undefined {
  const node = tree[index];
  return node?.nodeType === "parent" ? node.parent : undefined;
}

/** Throws MlsError unless every check passes. */
export async function validateTree(tree: RatchetTree, expected: TreeExpectations): Promise<void> {
  checkShape(tree);
  checkUniqueKeys(tree);
  checkUnmergedLeaves(tree);
  const { groupContext, implementation } = expected;
  if (!equal(await treeHashRoot(tree, implementation.hash), groupContext.treeHash)) {
    refuse("its hash is not the one in the GroupContext");
  }
  await checkParentHashes(tree, implementation);
  await checkLeaves(tree, expected);
}

function checkShape(tree: RatchetTree): void {
  for (const [index, node] of tree.entries()) {
    if (node && (node.nodeType === "leaf") !== isLeaf(toNodeIndex(index))) {
      refuse(`node ${index} is of the wrong kind`);
    }
  }
}

function checkUniqueKeys(tree: RatchetTree): void {
  const encryption = new Set<string>();
  const signature = new Set<string>();
  const once = (keys: Set<string>, key: Uint8Array, index: number) => {
    if (keys.size === keys.add(hex(key)).size) refuse(`the key of node ${index} is there twice`);
  };
  for (const [index, node] of tree.entries()) {
    if (node?.nodeType === "leaf") {
      once(encryption, node.leaf.hpkePublicKey, index);
      once(signature, node.leaf.signaturePublicKey, index);
    } else if (node) once(encryption, node.parent.hpkePublicKey, index);
  }
}

/**
 * §7.8: each unmerged leaf is a non-blank descendant of the node that lists it, the lists are sorted, and every
 * non-blank node between the two lists the leaf as well. Nodes in between may list more leaves: those above were
 * merged there by a later commit.
 */
function checkUnmergedLeaves(tree: RatchetTree): void {
  const width = leafWidth(tree.length);
  for (const index of tree.keys()) {
    const unmerged = parentAt(tree, index)?.unmergedLeaves ?? [];
    for (const [position, leaf] of unmerged.entries()) {
      if (position > 0 && unmerged[position - 1]! >= leaf) {
        refuse(`node ${index} lists unmerged leaves unsorted`);
      }
      if (leaf >= width || !tree[nodeOfLeaf(leaf)]) refuse(`node ${index} lists a blank leaf as unmerged`);
      const path: number[] = directPath(nodeOfLeaf(leaf), width);
      const depth = path.indexOf(index);
      if (depth < 0) refuse(`node ${index} lists an unmerged leaf that is not below it`);
      for (const between of path.slice(0, depth)) {
        const parent = parentAt(tree, between);
        if (parent && !parent.unmergedLeaves.includes(leaf)) {
          refuse(`node ${between} does not list an unmerged leaf of node ${index}`);
        }
      }
    }
  }
}

/**
 * §7.9.2: below every non-blank parent P, on one side, there is a node D with P's parent hash that is all of that
 * side's resolution apart from leaves unmerged at P.
 */
async function checkParentHashes(tree: RatchetTree, implementation: CiphersuiteImpl): Promise<void> {
  for (const index of tree.keys()) {
    const parent = parentAt(tree, index);
    if (!parent) continue;
    const node = toNodeIndex(index);
    const linked =
      await isLinked(tree, { parent, child: left(node), sibling: right(node), implementation }) ||
      await isLinked(tree, { parent, child: right(node), sibling: left(node), implementation });
    if (!linked) refuse(`the parent hash of node ${index} does not verify`);
  }
}

interface Link {
  readonly parent: ParentNode;
  readonly child: NodeIndex;
  readonly sibling: NodeIndex;
  readonly implementation: CiphersuiteImpl;
}

async function isLinked(tree: RatchetTree, link: Link): Promise<boolean> {
  const { parent, child, sibling, implementation } = link;
  const unmerged = new Set<number>(parent.unmergedLeaves.map(nodeOfLeaf));
  const merged = resolution(tree, child).filter((index) => !unmerged.has(index));
  const candidate = merged.length === 1 ? tree[merged[0]!] : undefined;
  if (!candidate) return false;
  const stored = candidate.nodeType === "parent"
    ? candidate.parent.parentHash
    : candidate.leaf.leafNodeSource === "commit"
    ? candidate.leaf.parentHash
    : undefined;
  if (!stored) return false;
  const before = parent.unmergedLeaves.length
    ? removeLeaves(tree, parent.unmergedLeaves.map(toLeafIndex))
    : tree;
  const input = encodeParentHashInput({
    encryptionKey: parent.hpkePublicKey,
    parentHash: parent.parentHash,
    originalSiblingTreeHash: await treeHash(before, sibling, implementation.hash),
  });
  return equal(await implementation.hash.digest(input), stored);
}

async function checkLeaves(tree: RatchetTree, expected: TreeExpectations): Promise<void> {
  const leaves: { leaf: LeafNode; leafIndex: number }[] = [];
  for (const [index, node] of tree.entries()) {
    if (node?.nodeType !== "leaf") continue;
    leaves.push({ leaf: node.leaf, leafIndex: nodeToLeafIndex(toNodeIndex(index)) });
  }
  const credentialTypes = new Set(leaves.map(({ leaf }) => leaf.credential.credentialType));
  for (const { leaf, leafIndex } of leaves) {
    checkCapabilities(leaf, expected.groupContext);
    for (const type of credentialTypes) {
      if (!leaf.capabilities.credentials.includes(type)) {
        refuse(`leaf ${leafIndex} cannot read credentials in use`);
      }
    }
    if (!await verifySignature(leaf, leafIndex, expected)) {
      refuse(`the signature of leaf ${leafIndex} is wrong`);
    }
    if (!await expected.authService.validateCredential(leaf.credential, leaf.signaturePublicKey)) {
      throw new MlsError(
        "untrusted",
        `Cannot join a group with a device that is not trusted: leaf ${leafIndex}`,
      );
    }
  }
}

function verifySignature(leaf: LeafNode, leafIndex: number, expected: TreeExpectations): Promise<boolean> {
  const { signature } = expected.implementation;
  return leaf.leafNodeSource === "key_package"
    ? verifyLeafNodeSignatureKeyPackage(leaf, signature)
    : verifyLeafNodeSignature(leaf, expected.groupContext.groupId, leafIndex, signature);
}

/** §7.3: a leaf supports its own extensions, those of the group, and what the group requires. */
function checkCapabilities(leaf: LeafNode, groupContext: GroupContext): void {
  const { capabilities, extensions } = leaf;
  if (
    !extensionsSupportedByCapabilities(extensions, capabilities) ||
    !extensionsSupportedByCapabilities(groupContext.extensions, capabilities)
  ) refuse("a leaf does not support an extension in use");
  const required = groupContext.extensions.find((extension) =>
    extension.extensionType === "required_capabilities"
  );
  if (!required) return;
  const decoded = decodeRequiredCapabilities(required.extensionData, 0)?.[0];
  const met = decoded?.extensionTypes.every((type) => capabilities.extensions.includes(type)) &&
    decoded.proposalTypes.every((type) => capabilities.proposals.includes(type)) &&
    decoded.credentialTypes.every((type) => capabilities.credentials.includes(type));
  if (!met) refuse("a leaf does not have the required capabilities");
}

/** Node index of a leaf. */
export function nodeOfLeaf(leafIndex: number): NodeIndex {
  return leafToNodeIndex(toLeafIndex(leafIndex));
}
