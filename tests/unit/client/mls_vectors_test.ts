/**
 * Official vectors of the MLS working group (mlswg/mls-implementations, trimmed) through our own join and our own
 * validation of trees.
 */
import assert from "node:assert/strict";
import {
  bytesToBase64,
  type CiphersuiteImpl,
  type CiphersuiteName,
  ciphersuites,
  type ClientConfig,
  decodeMlsMessage,
  getCiphersuiteFromName,
  getCiphersuiteImpl,
  makePskIndex,
  processMessage,
  type RatchetTree,
} from "ts-mls";

import { defaultClientConfig } from "ts-mls/clientConfig.js";
import { decodeRatchetTree } from "ts-mls/ratchetTree.js";
import { treeHashRoot } from "ts-mls/treeHash.js";
import { fromHex, hex } from "../../../mod/base/bytes.ts";
import { MlsError } from "../../../mod/client/mls_error.ts";
import { joinByWelcome } from "../../../mod/client/mls_join.ts";
import { validateTree } from "../../../mod/client/mls_tree.ts";

interface PassiveClient {
  readonly cipher_suite: number;
  readonly external_psks: readonly { readonly psk_id: string; readonly psk: string }[];
  readonly key_package: string;
  readonly signature_priv: string;
  readonly encryption_priv: string;
  readonly init_priv: string;
  readonly welcome: string;
  readonly ratchet_tree: string | null;
  readonly initial_epoch_authenticator: string;
  readonly epochs: readonly {
    readonly proposals: readonly string[];
    readonly commit: string;
    readonly epoch_authenticator: string;
  }[];
}

interface TreeValidation {
  readonly cipher_suite: number;
  readonly tree: string;
  readonly group_id: string;
  readonly tree_hashes: readonly string[];
}

async function fixture<T>(name: string): Promise<T[]> {
  return JSON.parse(await Deno.readTextFile(new URL(`../../fixtures/mls/${name}.json`, import.meta.url)));
}

function implementationOf(suite: number): Promise<CiphersuiteImpl> {
  const names = Object.keys(ciphersuites) as CiphersuiteName[];
  const name = names.find((one) => ciphersuites[one] === suite);
  return getCiphersuiteImpl(getCiphersuiteFromName(name!));
}

function message(bytes: string) {
  return decodeMlsMessage(fromHex(bytes), 0)![0];
}

async function join(vector: PassiveClient, clientConfig: ClientConfig = defaultClientConfig) {
  const keyPackage = message(vector.key_package);
  const welcome = message(vector.welcome);
  assert(keyPackage.wireformat === "mls_key_package" && welcome.wireformat === "mls_welcome");
  const psks = Object.fromEntries(
    vector.external_psks.map((one) => [bytesToBase64(fromHex(one.psk_id)), fromHex(one.psk)]),
  );
  const pskIndex = makePskIndex(undefined, psks);
  const implementation = await implementationOf(vector.cipher_suite);
  const tree = vector.ratchet_tree && decodeRatchetTree(fromHex(vector.ratchet_tree), 0)![0];
  const { state } = await joinByWelcome(welcome.welcome, {
    keyPackage: keyPackage.keyPackage,
    privateKeys: {
      initPrivateKey: fromHex(vector.init_priv),
      hpkePrivateKey: fromHex(vector.encryption_priv),
      signaturePrivateKey: fromHex(vector.signature_priv),
    },
    implementation,
    clientConfig,
    pskIndex,
    ...(tree ? { ratchetTree: tree } : {}),
  });
  return { state, implementation, psks };
}

Deno.test("joinByWelcome() joins the groups of the official vectors and follows their commits", async () => {
  const vectors = [
    ...await fixture<PassiveClient>("passive_client_welcome"),
    ...await fixture<PassiveClient>("passive_client_handling_commit"),
  ];
  assert.equal(vectors.length, 9);
  for (const [index, vector] of vectors.entries()) {
    let { state, implementation, psks } = await join(vector);
    assert.equal(
      hex(state.keySchedule.epochAuthenticator),
      vector.initial_epoch_authenticator,
      `vector ${index}`,
    );
    for (const epoch of vector.epochs) {
      for (const bytes of [...epoch.proposals, epoch.commit]) {
        const received = message(bytes);
        assert(received.wireformat === "mls_private_message" || received.wireformat === "mls_public_message");
        const pskIndex = makePskIndex(state, psks);
        state = (await processMessage(received, state, pskIndex, () => "accept", implementation)).newState;
      }
      assert.equal(hex(state.keySchedule.epochAuthenticator), epoch.epoch_authenticator, `vector ${index}`);
    }
  }
});

Deno.test("joinByWelcome() asks for trust in the members of the official vectors", async () => {
  const [vector] = await fixture<PassiveClient>("passive_client_welcome");
  const authService = { validateCredential: () => Promise.resolve(false) };
  await assert.rejects(() => join(vector!, { ...defaultClientConfig, authService }), MlsError);
});

async function validate(vector: TreeValidation, tree: RatchetTree): Promise<void> {
  const implementation = await implementationOf(vector.cipher_suite);
  const root = fromHex(vector.tree_hashes[(tree.length - 1) / 2]!);
  await validateTree(tree, {
    groupContext: {
      version: "mls10",
      cipherSuite: implementation.name,
      groupId: fromHex(vector.group_id),
      epoch: 1n,
      treeHash: root,
      confirmedTranscriptHash: new Uint8Array(0),
      extensions: [],
    },
    authService: { validateCredential: () => Promise.resolve(true) },
    implementation,
  });
}

Deno.test("validateTree() takes the trees of the official vectors", async () => {
  const vectors = await fixture<TreeValidation>("tree_validation");
  assert.equal(vectors.length, 14);
  for (const vector of vectors) await validate(vector, decodeRatchetTree(fromHex(vector.tree), 0)![0]);
});

Deno.test("validateTree() refuses those trees with any node exchanged, blanked or changed", async () => {
  const vectors = await fixture<TreeValidation>("tree_validation");
  const vector = vectors.find((one) => one.tree.length > 4000 && one.tree.length < 8000)!;
  const tree = decodeRatchetTree(fromHex(vector.tree), 0)![0];
  const wrong: RatchetTree[] = [];
  for (const [index, node] of tree.entries()) {
    if (!node) continue;
    wrong.push(tree.with(index, undefined));
    wrong.push(tree.with(index, tree[(index + 2) % tree.length]));
    if (node.nodeType === "parent") {
      const key = node.parent.hpkePublicKey.with(0, node.parent.hpkePublicKey[0]! ^ 1);
      wrong.push(tree.with(index, { ...node, parent: { ...node.parent, hpkePublicKey: key } }));
    }
  }
  assert(wrong.length > 10);
  for (const changed of wrong) {
    if (changed.every((node, index) => node === tree[index])) continue;
    await assert.rejects(() => validate(vector, changed), MlsError);
  }
});

Deno.test("validateTree() refuses wrong parent hashes and unmerged leaves even when the tree hash agrees", async () => {
  const vectors = await fixture<TreeValidation>("tree_validation");
  let refused = 0;
  for (const vector of vectors) {
    const tree = decodeRatchetTree(fromHex(vector.tree), 0)![0];
    const implementation = await implementationOf(vector.cipher_suite);
    for (const [index, node] of tree.entries()) {
      if (node?.nodeType !== "parent") continue;
      const parent = { ...node.parent, unmergedLeaves: [...node.parent.unmergedLeaves, 0] };
      const moved = {
        ...node.parent,
        parentHash: node.parent.parentHash.length ? new Uint8Array(32) : undefined,
      };
      for (const changed of [parent, moved]) {
        if (!changed.parentHash) continue;
        const other = tree.with(index, { ...node, parent: { ...changed, parentHash: changed.parentHash } });
        const treeHash = hex(await treeHashRoot(other, implementation.hash));
        const hashes = vector.tree_hashes.with((tree.length - 1) / 2, treeHash);
        await assert.rejects(
          () => validate({ ...vector, tree_hashes: hashes }, other),
          /parent hash|unmerged/,
        );
        refused++;
      }
    }
  }
  assert(refused > 20);
});
