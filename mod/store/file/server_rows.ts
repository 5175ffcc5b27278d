/** The server's own rows in memory: OPAQUE setups, the clock mark and the numbers of {@link ServerStore}. */
import { copy } from "../../base/bytes.ts";
import type { OpaqueSetup, ServerStore, StoreCounts } from "../store.ts";
import type { State } from "./state.ts";

const MARK = "mark";

/** See {@link ServerStore.opaqueSetups}. */
export function findSetups(state: State): OpaqueSetup[] {
  return [...state.setups.rows()]
    .sort((a, b) => a.setupId - b.setupId)
    .map((row) => ({ ...row, secret: copy(row.secret) }));
}

/** See {@link ServerStore.initOpaqueSetup}. */
export function initSetup(
  state: State,
  setup: Parameters<ServerStore["initOpaqueSetup"]>[0],
): Awaited<ReturnType<ServerStore["initOpaqueSetup"]>> {
  const added = state.setups.size === 0;
  if (added) {
    const { suiteId, createdAt } = setup;
    state.put(state.setups, { setupId: 1, suiteId, secret: setup.secret, createdAt, retiredAt: null });
  }
  return { setups: findSetups(state), added };
}

/**
 * See {@link ServerStore.writeMark}. Always a change, also when the mark is the same: it is there to find out
 * whether the disk can be written.
 */
export function writeMark(state: State, now: number): number | null {
  const former = state.meta.get(MARK)?.number ?? null;
  state.put(state.meta, { name: MARK, number: now, bytes: null });
  return former;
}

/** See {@link ServerStore.counts}. */
export function countAll(state: State): StoreCounts {
  return {
    accounts: state.accounts.accounts.size,
    devices: state.sessionIndex.deviceCount,
    queueEntries: state.queues.entries.size,
    queueBytes: state.queueIndex.queueBytes,
    keyPackages: state.keyPackageIndex.packageCount,
    blobs: state.blobIndex.blobCount,
    blobBytes: state.blobIndex.blobBytes,
    outboxEntries: state.queues.outbox.size,
    outboxBytes: state.queueIndex.outboxBytes,
  };
}
