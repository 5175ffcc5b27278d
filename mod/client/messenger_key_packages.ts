/**
 * KeyPackage upkeep: enough of each suite on the server, a last-resort one that is renewed in time, all of them anew
 * when the server has got another domain, and no private keys kept beyond their use. Private keys are saved before the package is uploaded: a Welcome may
 * come at once.
 */
import type { Clock } from "../base/clock.ts";
import { KeyedMutex } from "../base/keyed_mutex.ts";
import { MLS_SUITE_X25519, MLS_SUITE_XWING, type MlsSuite } from "../base/mls_suites.ts";
import type { GroupStore } from "./messenger_group_store.ts";
import type { Uplink } from "./messenger_uplink.ts";
import { createKeyPackages, type OwnKeyPackage } from "./mls_key_packages.ts";
import type { ClientState } from "./state.ts";

const DAY_MS = 86_400_000;
/** How many the server shall hold; refilled when half of them are gone. */
const SUPPLY: ReadonlyMap<MlsSuite, number> = new Map([[MLS_SUITE_X25519, 20], [MLS_SUITE_XWING, 6]]);
/** A last-resort package is renewed when it has less than this left: at 60 of 90 days. */
const LAST_RESORT_LEFT_MS_MIN = 30 * DAY_MS;
/** Private keys of expired packages are kept a little longer, for a Welcome that is on its way. */
const EXPIRED_KEPT_MS = 31 * DAY_MS;
/** Setting: the domain that the packages on the server name; without, none. */
export const KEY_PACKAGE_DOMAIN = "keyPackageDomain";
/** Without a notice of the server the supply is looked at so often. */
const CHECK_INTERVAL_MS = DAY_MS / 2;

/** The KeyPackages of this device. */
export class KeyPackageUpkeep {
  readonly #state: ClientState;
  readonly #uplink: Uplink;
  readonly #groups: GroupStore;
  readonly #clock: Clock;
  readonly #mutex = new KeyedMutex();
  #checkedAt: number | null = null;

  constructor(deps: { state: ClientState; uplink: Uplink; groups: GroupStore; clock: Clock }) {
    this.#state = deps.state;
    this.#uplink = deps.uplink;
    this.#groups = deps.groups;
    this.#clock = deps.clock;
  }

  /** The server has said that the supply is low, or it may have lost it: look at it next time. */
  expireCheck(): void {
    this.#checkedAt = null;
  }

  /** Uploads what is missing, if it is time to look. */
  keep(): Promise<void> {
    return this.#mutex.run("", async () => {
      const now = this.#clock.now();
      const { hello } = await this.#uplink.link();
      const { domain } = this.#groups.context.identity;
      const isRenewal = domain !== (this.#state.get("settings", KEY_PACKAGE_DOMAIN) ?? "");
      if (!isRenewal && this.#checkedAt !== null && now - this.#checkedAt < CHECK_INTERVAL_MS) return;
      const { counts } = await this.#uplink.call("countKeyPackages", {});
      const made: OwnKeyPackage[] = [];
      for (const [suite, wanted] of SUPPLY) {
        const count = counts.find((one) => one.suite === suite);
        const stored = count?.count ?? 0;
        const room = Math.max(0, (hello.limits?.keyPackagesMax || Infinity) - stored);
        // Those that name another domain, or none, are used up by the server.
        const supply = isRenewal ? 0 : stored;
        if (supply * 2 < wanted) {
          made.push(...await this.#make({ suite, count: Math.min(room, wanted - supply) }));
        }
        const lastResortUntil = Number(count?.lastResortNotAfterMs ?? 0);
        if (isRenewal || lastResortUntil - now < LAST_RESORT_LEFT_MS_MIN) {
          made.push(...await this.#make({ suite, count: 1, lastResort: true }));
        }
      }
      await this.#save(made);
      if (made.length > 0) {
        const keyPackages = made.map(({ publicBytes, lastResort }) => ({
          keyPackage: publicBytes,
          lastResort,
        }));
        await this.#uplink.call("uploadKeyPackages", { keyPackages });
      }
      if (isRenewal) {
        await this.#state.transaction((tx) => {
          if (domain === "") tx.delete("settings", KEY_PACKAGE_DOMAIN);
          else tx.put("settings", KEY_PACKAGE_DOMAIN, domain);
        });
      }
      this.#checkedAt = now;
    });
  }

  #make(options: { suite: MlsSuite; count: number; lastResort?: boolean }): Promise<OwnKeyPackage[]> {
    return createKeyPackages(this.#groups.context, options);
  }

  /** Saves new private keys and forgets those that nobody can use any more. */
  async #save(made: readonly OwnKeyPackage[]): Promise<void> {
    const now = this.#clock.now();
    const expired = this.#state.all("keyPackages").filter((one) => one.notAfterMs + EXPIRED_KEPT_MS < now);
    if (made.length + expired.length === 0) return;
    await this.#state.transaction((tx) => {
      for (const { ref } of expired) tx.delete("keyPackages", ref);
      for (const one of made) tx.put("keyPackages", one.ref, { ...one, createdMs: now });
    });
  }
}
