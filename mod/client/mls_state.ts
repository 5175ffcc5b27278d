/**
 * Saving MLS groups. A group is saved in two parts, so that a message in a large group costs little: the base is
 * written once an epoch; the delta holds the ratchets that have moved since, one for each active sender.
 *
 *   base:  version (1) ‖ GroupState as ts-mls encodes it
 *   delta: version (1) ‖ { epoch (8) ‖ node index (4) ‖ SecretTreeNode }, repeated
 *
 * Configuration and callbacks are no part of it.
 */
import "./mls_packages.ts";
import type { ClientConfig, ClientState, SecretTree, SecretTreeNode } from "ts-mls";
import { decodeGroupState, encodeGroupState } from "ts-mls";
import { mapDecoders } from "ts-mls/codec/tlsDecoder.js";
import { contramapBufferEncoders, encode } from "ts-mls/codec/tlsEncoder.js";
import { decodeUint32, decodeUint64, uint32Encoder, uint64Encoder } from "ts-mls/codec/number.js";
import { decodeSecretTreeNode, secretTreeNodeEncoder } from "ts-mls/secretTree.js";
import { type Bytes, concat } from "../base/bytes.ts";
import { MlsError } from "./mls_error.ts";

/** A saved group. The base is the same object as long as it need not be written again. */
export interface StoredGroup {
  readonly base: Bytes;
  readonly delta: Bytes;
}

const VERSION = 1;

/** What each base that was written or read here stands for, to compare the next state with. */
const statesByBase = new WeakMap<Bytes, ClientState>();

interface MovedRatchet {
  readonly epoch: bigint;
  readonly index: number;
  readonly node: SecretTreeNode;
}

const encodeMoved = encode(
  contramapBufferEncoders<[bigint, number, SecretTreeNode], MovedRatchet>(
    [uint64Encoder, uint32Encoder, secretTreeNodeEncoder],
    (moved) => [moved.epoch, moved.index, moved.node],
  ),
);

const decodeMoved = mapDecoders(
  [decodeUint64, decodeUint32, decodeSecretTreeNode],
  (epoch: bigint, index: number, node: SecretTreeNode): MovedRatchet => ({ epoch, index, node }),
);

/** Nothing, in the form of a ratchet: for the nodes of a secret tree that no message is ever encrypted with. */
const EMPTY_NODE: SecretTreeNode = {
  handshake: { secret: new Uint8Array(0), generation: 0, unusedGenerations: {} },
  application: { secret: new Uint8Array(0), generation: 0, unusedGenerations: {} },
};

/** Drops ratchets of parent nodes and of blank leaves, which ts-mls derives although nothing uses them. */
export function pruneSecretTree(state: ClientState): ClientState {
  const secretTree = state.secretTree.map((node, index) =>
    index % 2 === 0 && state.ratchetTree[index] ? node : EMPTY_NODE
  );
  return { ...state, secretTree };
}

/** Saves a group; `previous` is what was saved of it last, if anything. */
export function encodeGroupParts(state: ClientState, previous?: StoredGroup): StoredGroup {
  const saved = previous && statesByBase.get(previous.base);
  const moved = saved && movedSince(saved, state);
  if (previous && moved) {
    return {
      base: previous.base,
      delta: concat(Uint8Array.of(VERSION), ...moved.map((one) => encodeMoved(one))),
    };
  }
  const base = concat(Uint8Array.of(VERSION), encodeGroupState(state));
  statesByBase.set(base, state);
  return { base, delta: Uint8Array.of(VERSION) };
}

/** The ratchets that differ; undefined when something else differs as well, so that a new base is due. */
function movedSince(saved: ClientState, state: ClientState): MovedRatchet[] | undefined {
  const same = saved.groupContext === state.groupContext && saved.ratchetTree === state.ratchetTree &&
    saved.keySchedule === state.keySchedule && saved.privatePath === state.privatePath &&
    saved.unappliedProposals === state.unappliedProposals &&
    saved.confirmationTag === state.confirmationTag &&
    saved.groupActiveState === state.groupActiveState &&
    saved.historicalReceiverData.size === state.historicalReceiverData.size;
  if (!same) return undefined;
  const moved = movedNodes(state.groupContext.epoch, saved.secretTree, state.secretTree);
  for (const [epoch, data] of state.historicalReceiverData) {
    const before = saved.historicalReceiverData.get(epoch);
    if (before?.ratchetTree !== data.ratchetTree) return undefined;
    moved.push(...movedNodes(epoch, before.secretTree, data.secretTree));
  }
  return moved;
}

function movedNodes(epoch: bigint, before: SecretTree, after: SecretTree): MovedRatchet[] {
  const moved: MovedRatchet[] = [];
  if (before === after) return moved;
  for (const [index, node] of after.entries()) {
    if (node !== before[index]) moved.push({ epoch, index, node });
  }
  return moved;
}

/** Undoes {@link encodeGroupParts}. Throws MlsError `malformed`. */
export function decodeGroupParts(stored: StoredGroup, clientConfig: ClientConfig): ClientState {
  const { base, delta } = stored;
  if (base[0] !== VERSION || delta[0] !== VERSION) {
    throw new MlsError(
      "malformed",
      `Cannot read a saved group of form ${base[0]}/${delta[0]}: this is ${VERSION}`,
    );
  }
  try {
    const state: ClientState = { ...decodeBase(base), clientConfig };
    statesByBase.set(base, state);
    return applyDelta(state, delta);
  } catch (cause) {
    throw new MlsError("malformed", "Cannot read a saved group as it is damaged", { cause });
  }
}

function decodeBase(base: Bytes) {
  const decoded = decodeGroupState(base.subarray(1), 0);
  if (!decoded || decoded[1] !== base.length - 1) throw new RangeError("The base is cut off");
  return decoded[0];
}

function applyDelta(state: ClientState, delta: Bytes): ClientState {
  if (delta.length === 1) return state;
  const current = state.secretTree.slice();
  const historical = new Map(state.historicalReceiverData);
  for (const { epoch, index, node } of readDelta(delta)) {
    const data = historical.get(epoch);
    if (epoch === state.groupContext.epoch) current[index] = node;
    else if (data) historical.set(epoch, { ...data, secretTree: data.secretTree.with(index, node) });
    else throw new RangeError(`There is a ratchet of an unknown epoch: ${epoch}`);
  }
  return { ...state, secretTree: current, historicalReceiverData: historical };
}

function* readDelta(delta: Bytes): Generator<MovedRatchet> {
  let offset = 1;
  while (offset < delta.length) {
    const decoded = decodeMoved(delta, offset);
    if (!decoded) throw new RangeError("The ratchets are cut off");
    yield decoded[0];
    offset += decoded[1];
  }
}
