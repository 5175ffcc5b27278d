/** The server's own rows in memory: OPAQUE setups and the clock mark of {@link ServerStore}. */
import { copy } from "../../base/bytes.ts";
import type { OpaqueSetup, ServerStore } from "../store.ts";
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
    state.put(state.setups, { setupId: 1, suiteId, secret: copy(setup.secret), createdAt, retiredAt: null });
  }
  return { setups: findSetups(state), added };
}

/** The last mark. */
export function findMark(state: State): number | null {
  return state.meta.get(MARK)?.number ?? null;
}

/** Always a change, also when the mark is the same: it is there to find out whether the disk can be written. */
export function putMark(state: State, now: number): void {
  state.put(state.meta, { name: MARK, number: now, bytes: null });
}
