/**
 * OPAQUE server setups: a suite's first one is made at the first start with it; later ones come from a rotation.
 * Records only work with the setup that they were made under, while that is not retired; new ones are made under the
 * newest of their suite.
 */
import { assert } from "../base/assert.ts";
import type { Clock } from "../base/clock.ts";
import { logger } from "../base/log.ts";
import { QpqError } from "../base/errors.ts";
import { OPAQUE_SUITE_NAMES, SUITE_RISTRETTO255 } from "../base/opaque_suite.ts";
import type { OpaqueSetup, Store } from "../store/store.ts";
import type { OpaquePool } from "./opaque.ts";

type SetupStore = Pick<Store, "opaqueSetups" | "initOpaqueSetup" | "addOpaqueSetup" | "accountsBySetup">;

/** The ids of the setups that new records get: the newest of each suite. Oldest first in, as the store gives them. */
export function newestSetups(setups: readonly OpaqueSetup[]): Set<number> {
  const used = setups.filter(({ retiredAt }) => retiredAt === null);
  return new Set(new Map(used.map(({ suiteId, setupId }) => [suiteId, setupId])).values());
}

/** The setups of a store, kept in memory. */
export class OpaqueSetups {
  readonly #store: SetupStore;
  #setups: readonly OpaqueSetup[];

  private constructor(store: SetupStore, setups: readonly OpaqueSetup[]) {
    this.#store = store;
    this.#setups = setups;
  }

  /**
   * Reads the setups; makes and stores the first of each of `suites` when there is none. Throws when there are accounts
   * whose suite is not among them: they could not log in any more.
   */
  static async open(
    deps: { store: SetupStore; pool: OpaquePool; clock: Clock; suites?: readonly number[] },
  ): Promise<OpaqueSetups> {
    const { store, pool, clock, suites = [SUITE_RISTRETTO255] } = deps;
    const setups = await OpaqueSetups.#openFirst(deps);
    await refuseLockOut(store, setups.#setups, suites);
    for (const suiteId of suites) {
      if (setups.#setups.some((setup) => setup.suiteId === suiteId && setup.retiredAt === null)) continue;
      const secret = await pool.createSetup(suiteId);
      const { setupId } = await store.addOpaqueSetup({ suiteId, secret, createdAt: clock.now() });
      const suite = OPAQUE_SUITE_NAMES.get(suiteId) ?? suiteId;
      logger("auth").info("generated and persisted an OPAQUE ServerSetup of another suite", {
        suite,
        setupId,
      });
      await setups.refresh();
    }
    return setups;
  }

  static async #openFirst(
    { store, pool, clock }: { store: SetupStore; pool: OpaquePool; clock: Clock },
  ): Promise<OpaqueSetups> {
    const present = await store.opaqueSetups();
    if (present.length > 0) return new OpaqueSetups(store, present);
    const secret = await pool.createSetup(SUITE_RISTRETTO255);
    const setup = { suiteId: SUITE_RISTRETTO255, secret, createdAt: clock.now() };
    const { setups, added } = await store.initOpaqueSetup(setup);
    // Several servers may start on one store at once: only the one whose setup is used says so.
    if (added) logger("auth").info("generated and persisted new OPAQUE ServerSetup");
    return new OpaqueSetups(store, setups);
  }

  /** The setup for new records of a suite. */
  newest(suiteId: number = SUITE_RISTRETTO255): OpaqueSetup {
    const setup = this.#setups.findLast((each) => each.retiredAt === null && each.suiteId === suiteId);
    assert(setup, `There is no OPAQUE setup of suite ${suiteId} in use`);
    return setup;
  }

  /**
   * The setup under which unknown names are answered. Where the OPRF seed was kept it does not matter which; after a
   * change of the seed the answers for unknown names must go on like those for accounts that have not logged in.
   */
  oldest(suiteId: number = SUITE_RISTRETTO255): OpaqueSetup {
    return this.#setups.find((each) => each.retiredAt === null && each.suiteId === suiteId) ??
      this.newest(suiteId);
  }

  /** The ids of the newest setup of each suite. */
  newestOfEach(): ReadonlySet<number> {
    return newestSetups(this.#setups);
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

async function refuseLockOut(
  store: SetupStore,
  setups: readonly OpaqueSetup[],
  suites: readonly number[],
): Promise<void> {
  const others = setups.filter(({ suiteId, retiredAt }) => retiredAt === null && !suites.includes(suiteId));
  if (others.length === 0) return;
  const accounts = new Map((await store.accountsBySetup()).map((each) => [each.setupId, each.accounts]));
  const count = others.reduce((sum, { setupId }) => sum + (accounts.get(setupId) ?? 0), 0);
  if (count === 0) return;
  const names = [...new Set(others.map(({ suiteId }) => OPAQUE_SUITE_NAMES.get(suiteId) ?? suiteId))].join(
    ", ",
  );
  throw new QpqError(
    "internal",
    `Cannot start without ${names} in opaque_suites: ${count} ${
      count === 1 ? "account has" : "accounts have"
    } ` +
      "records of it and would be locked out. Keep it until they have logged in with a client that migrates them " +
      "(`qpq-server rotate status` counts them), or retire its setup by force and `qpq-server user reset` them",
  );
}
