/**
 * OPAQUE server setups: the first one is made at the first start; later ones come from a rotation. Records
 * only work with the setup that they were made under, while that is not retired; new ones are made under the newest.
 */
import { assert } from "../base/assert.ts";
import type { Clock } from "../base/clock.ts";
import { logger } from "../base/log.ts";
import { SUITE_RISTRETTO255 } from "../base/opaque_suite.ts";
import type { OpaqueSetup, ServerStore } from "../store/store.ts";
import type { OpaquePool } from "./opaque.ts";

type SetupStore = Pick<ServerStore, "opaqueSetups" | "initOpaqueSetup">;

/** The setups of a store, kept in memory. */
export class OpaqueSetups {
  readonly #store: SetupStore;
  #setups: readonly OpaqueSetup[];

  private constructor(store: SetupStore, setups: readonly OpaqueSetup[]) {
    this.#store = store;
    this.#setups = setups;
  }

  /** Reads the setups; makes and stores the first when there is none. */
  static async open(deps: { store: SetupStore; pool: OpaquePool; clock: Clock }): Promise<OpaqueSetups> {
    const { store, pool, clock } = deps;
    const present = await store.opaqueSetups();
    if (present.length > 0) return new OpaqueSetups(store, present);
    const secret = await pool.createSetup(SUITE_RISTRETTO255);
    const setup = { suiteId: SUITE_RISTRETTO255, secret, createdAt: clock.now() };
    const { setups, added } = await store.initOpaqueSetup(setup);
    // Several servers may start on one store at once: only the one whose setup is used says so.
    if (added) logger("auth").info("generated and persisted new OPAQUE ServerSetup");
    return new OpaqueSetups(store, setups);
  }

  /** The setup for new records. */
  newest(): OpaqueSetup {
    const setup = this.#setups.findLast((candidate) => candidate.retiredAt === null);
    assert(setup, "There is no OPAQUE setup in use");
    return setup;
  }

  /**
   * The setup under which unknown names are answered. Where the OPRF seed was kept it does not matter which; after a
   * change of the seed the answers for unknown names must go on like those for accounts that have not logged in.
   */
  oldest(): OpaqueSetup {
    return this.#setups.find((candidate) => candidate.retiredAt === null) ?? this.newest();
  }

  /** The setup that a record was made under, retired or not; null when it is gone. Reads the store again when it is not known. */
  async find(setupId: number): Promise<OpaqueSetup | null> {
    const known = () => this.#setups.find((setup) => setup.setupId === setupId) ?? null;
    if (!known()) await this.refresh();
    return known();
  }

  /** Reads the store again: after a rotation. */
  async refresh(): Promise<void> {
    this.#setups = await this.#store.opaqueSetups();
  }
}
