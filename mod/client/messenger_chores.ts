/**
 * What a client does without being asked: adds the account's new devices to its groups, removes revoked ones,
 * commits leave requests, sends what waits, keeps KeyPackages. Chores are rows of the state, so that none is
 * forgotten in a crash.
 */
import type { Clock } from "../base/clock.ts";
import { messageOf, QpqError } from "../base/errors.ts";
import type { GroupId } from "../base/ids.ts";
import { KeyedMutex } from "../base/keyed_mutex.ts";
import { logger } from "../base/log.ts";
import type { Inbox } from "./inbox.ts";
import { choreKey } from "./inbox_rows.ts";
import { type Committer, missingFrom } from "./messenger_commits.ts";
import type { GroupStore } from "./messenger_group_store.ts";
import type { KeyPackageUpkeep } from "./messenger_key_packages.ts";
import { isConnectionTrouble } from "./messenger_uplink.ts";
import { lacksDomain } from "./mls_commits.ts";
import { groupInfo, members } from "./mls_group.ts";
import type { Outbox } from "./outbox.ts";
import type { ClientState } from "./state.ts";
import type { ChoreRecord, GroupRecord } from "./state_records.ts";

const log = logger("client");

const AGAIN_FIRST_MS = 1_000;
const AGAIN_MAX_MS = 60_000;
/** A chore that could not be done for so long is given up. */
const LIFE_MS = 7 * 86_400_000;

/** The chores of a client. */
export class Chores {
  readonly #state: ClientState;
  readonly #groups: GroupStore;
  readonly #committer: Committer;
  readonly #outbox: Outbox;
  readonly #keyPackages: KeyPackageUpkeep;
  readonly #inbox: Inbox;
  readonly #clock: Clock;
  readonly #mutex = new KeyedMutex();

  constructor(deps: {
    state: ClientState;
    groups: GroupStore;
    committer: Committer;
    outbox: Outbox;
    keyPackages: KeyPackageUpkeep;
    inbox: Inbox;
    clock: Clock;
  }) {
    this.#state = deps.state;
    this.#groups = deps.groups;
    this.#committer = deps.committer;
    this.#outbox = deps.outbox;
    this.#keyPackages = deps.keyPackages;
    this.#inbox = deps.inbox;
    this.#clock = deps.clock;
  }

  /**
   * Does what can be done now. Rejects only when the connection is lost; what else fails is tried again
   * later. Resolves with the time to wait before the next run makes sense, undefined when nothing waits.
   */
  run(): Promise<number | undefined> {
    return this.#mutex.run("", async () => {
      await this.#attempt("key packages", () => this.#keyPackages.keep());
      await this.#attempt("outbox", () => this.#outbox.flush());
      await this.#attempt("early messages", () => this.#inbox.settleEarly());
      await this.#attempt("held messages", () => this.#inbox.refreshHeld());
      for (const chore of this.#state.all("chores")) {
        const done = await this.#attempt(chore.kind, () => this.#do(chore));
        await this.#state.transaction((tx) => {
          const key = choreKey(chore);
          const isOver = done === true || this.#clock.now() - chore.sinceMs > LIFE_MS;
          if (isOver) tx.delete("chores", key);
          else if (tx.get("chores", key)) tx.put("chores", key, { ...chore, attempts: chore.attempts + 1 });
        });
      }
      return this.#nextRunMs();
    });
  }

  #nextRunMs(): number | undefined {
    const waits = this.#state.all("chores").map(({ attempts }) =>
      Math.min(AGAIN_MAX_MS, AGAIN_FIRST_MS * 2 ** Math.max(0, attempts - 1))
    );
    const retryAt = this.#outbox.nextRetryAt();
    if (retryAt !== undefined) waits.push(Math.max(0, retryAt - this.#clock.now()));
    return waits.length > 0 ? Math.min(...waits) : undefined;
  }

  async #attempt<Value>(what: string, work: () => Promise<Value>): Promise<Value | undefined> {
    try {
      return await work();
    } catch (error) {
      if (isConnectionTrouble(error)) throw error;
      if (error instanceof QpqError && error.code === "loginRequired") throw error;
      log.debug("chore {what} failed: {reason}", { what, reason: messageOf(error) });
      return undefined;
    }
  }

  /** True when there is nothing left to do. */
  async #do(chore: ChoreRecord): Promise<boolean> {
    let isDone = true;
    for (const row of this.#state.all("groups")) {
      const isConcerned = row.status === "active" && !row.broken &&
        (chore.groupId === undefined || chore.groupId === row.id);
      if (!isConcerned) continue;
      isDone = await this.#doIn(row, chore) && isDone;
    }
    return isDone;
  }

  #doIn(row: GroupRecord, chore: ChoreRecord): Promise<boolean> {
    switch (chore.kind) {
      case "addDevice":
        return this.#addDevice(row, chore);
      case "removeDevice":
        return this.#removeDevice(row.id, chore);
      case "nameDomain":
        return this.#nameDomain(row.id);
    }
  }

  async #nameDomain(groupId: GroupId): Promise<boolean> {
    await this.#committer.commit(groupId, (group) => lacksDomain(this.#groups.context, group) ? {} : null);
    return true;
  }

  async #addDevice(row: GroupRecord, chore: ChoreRecord): Promise<boolean> {
    const { group } = this.#groups.load(this.#state, row.id);
    if (members(group).some((member) => member.deviceId === chore.deviceId)) return true;
    const claimed = await this.#committer.claimOwn({
      suite: groupInfo(group).suite,
      devices: [chore.deviceId],
    });
    if (claimed.size === 0) return false; // it has not uploaded any yet
    await this.#committer.commit(row.id, (now) => {
      const add = missingFrom(members(now), claimed);
      return add.length > 0 ? { add } : null;
    });
    return true;
  }

  async #removeDevice(groupId: GroupId, chore: ChoreRecord): Promise<boolean> {
    await this.#committer.commit(groupId, (group) => {
      const isMember = members(group).some((member) => member.deviceId === chore.deviceId);
      return isMember ? { remove: [chore.deviceId] } : null;
    });
    return true;
  }
}
