/**
 * What comes out of the delivery queue: each entry is processed in one state transaction that also remembers
 * it, moves the cursor and keeps what is to be shown. Only then may it be acknowledged; so a crash loses
 * nothing, and an entry that comes again is recognised.
 */
import { copy, equal, hex, sha256 } from "../base/bytes.ts";
import type { Clock } from "../base/clock.ts";
import { QpqError } from "../base/errors.ts";
import { type AccountId, type EntryId, type GroupId, idOf } from "../base/ids.ts";
import { KeyedMutex } from "../base/keyed_mutex.ts";
import { logger } from "../base/log.ts";
import { type Cursor, type Entry, EntryKind } from "../protocol/qpq_pb.ts";
import { expireEarly, hasOverdue, nextEarly } from "./inbox_early.ts";
import { applyNotice } from "./inbox_notices.ts";
import { type Arrival, EntryReader, type Reading } from "./inbox_reader.ts";
import { addMessage, addNotice } from "./inbox_rows.ts";
import type { Contacts } from "./messenger_contacts.ts";
import type { GroupStore } from "./messenger_group_store.ts";
import type { MlsContext } from "./mls_credentials.ts";
import { MlsError } from "./mls_error.ts";
import { processMessage, readHeader } from "./mls_messages.ts";
import { joinGroup } from "./mls_welcome.ts";
import type { ClientState, StateTransaction } from "./state.ts";
import type { InboxNotice } from "./state_records.ts";

const log = logger("client");

/** Takes entries in. */
export class Inbox {
  readonly #state: ClientState;
  readonly #contacts: Contacts;
  readonly #groups: GroupStore;
  readonly #clock: Clock;
  readonly #onKeyPackagesLow: () => void;
  readonly #reader: EntryReader;
  readonly #mutex = new KeyedMutex();
  #waiters: (() => void)[] = [];

  constructor(deps: {
    state: ClientState;
    contacts: Contacts;
    groups: GroupStore;
    clock: Clock;
    onKeyPackagesLow: () => void;
  }) {
    this.#state = deps.state;
    this.#contacts = deps.contacts;
    this.#groups = deps.groups;
    this.#clock = deps.clock;
    this.#onKeyPackagesLow = deps.onKeyPackagesLow;
    this.#reader = new EntryReader(deps);
  }

  /** Where to fetch on from. */
  get after(): number {
    return this.#state.one("cursor")?.after ?? 0;
  }

  /**
   * Notes where the queue stands. False: the server's store was restored from a backup, so the numbers begin
   * anew and what was fetched with the former ones is to be fetched again.
   */
  async observe(cursor: Cursor): Promise<boolean> {
    const saved = this.#state.one("cursor");
    const incarnation = copy(cursor.incarnation);
    const isSame = saved !== undefined && equal(saved.incarnation, incarnation);
    const dropped = Number(cursor.droppedCount);
    const knownDropped = isSame ? saved.droppedCount ?? 0 : 0;
    if (isSame && dropped <= knownDropped) return true;
    await this.#state.transaction((tx) => {
      const after = isSame ? tx.one("cursor")?.after ?? 0 : 0;
      tx.set("cursor", { incarnation, after, droppedCount: dropped });
      if (dropped <= knownDropped) return;
      const notice: InboxNotice = { kind: "lost", count: dropped - knownDropped };
      addNotice(tx, { notice, acceptedMs: this.#clock.now() });
    });
    this.#wake();
    return isSame || saved === undefined;
  }

  /** Processes entries in order; when this resolves they may be acknowledged. */
  take(entries: readonly Entry[]): Promise<void> {
    return this.#mutex.run("", async () => {
      for (const entry of entries) {
        const seq = Number(entry.seq);
        const cursor = this.#state.one("cursor");
        if (cursor && seq <= cursor.after) continue; // fetched twice, by a subscription and a catch-up
        const digest = hex(await sha256(entry.payload)).slice(0, 16);
        await this.#process({
          id: `${idOf<EntryId>(entry.entryId)}${digest}` as EntryId,
          seq,
          kind: entry.kind,
          acceptedMs: Number(entry.acceptedAtMs),
          payload: copy(entry.payload),
          senderDomain: this.#groups.foreign(entry.senderDomain),
          cursor: cursor ? { ...cursor, after: seq } : null,
          wasEarly: false,
        });
        this.#wake();
      }
      await this.#takeEarly();
    });
  }

  /** Reads what came before its time, as far as that has come; gives up what has waited for too long. */
  settleEarly(): Promise<void> {
    return this.#mutex.run("", () => this.#takeEarly());
  }

  async #takeEarly(): Promise<void> {
    const epochOf = (groupId: GroupId) => this.#reader.epochOf(this.#state, groupId);
    for (let row = nextEarly(this.#state, epochOf); row; row = nextEarly(this.#state, epochOf)) {
      await this.#process({ ...row, id: row.entryId, kind: EntryKind.MESSAGE, cursor: null, wasEarly: true });
      this.#wake();
    }
    const now = this.#clock.now();
    if (!hasOverdue(this.#state, now)) return;
    await this.#state.transaction((tx) => expireEarly(tx, now));
    this.#wake();
  }

  /** Asks again for senders whose server could not be reached when they wrote, and shows what was held of them. */
  async refreshHeld(): Promise<void> {
    const strangers = this.#state.all("held").filter(({ domain, row }) =>
      domain !== undefined && !this.#state.get("contacts", row.senderAccountId)?.offered
    );
    if (strangers.length === 0) return;
    const accounts = new Map(strangers.map(({ domain, row }) => [row.senderAccountId, domain!]));
    await this.#learn(accounts);
    await this.releaseHeld();
  }

  /** Shows what was held and comes from devices that are trusted by now. */
  async releaseHeld(): Promise<void> {
    await this.#state.transaction((tx) => {
      for (const { row, deviceKey, domain = "" } of tx.all("held")) {
        const leaf = {
          accountId: row.senderAccountId,
          deviceId: row.senderDeviceId,
          domain,
          signatureKey: deviceKey,
        };
        if (!this.#contacts.isTrusted(leaf)) continue;
        tx.delete("held", row.entryId);
        addMessage(tx, row);
      }
    });
    this.#wake();
  }

  /** Resolves when something may have been added, or when `signal` aborts. */
  async changed(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    await new Promise<void>((resolve) => {
      const done = () => {
        signal.removeEventListener("abort", done);
        resolve();
      };
      this.#waiters.push(done);
      signal.addEventListener("abort", done, { once: true });
    });
  }

  #wake(): void {
    for (const wake of this.#waiters.splice(0)) wake();
  }

  async #process(arrival: Arrival): Promise<void> {
    try {
      await this.#apply(arrival, "strict");
    } catch (error) {
      if (!isUntrusted(error)) throw error;
      await this.#learnDevices(arrival);
      await this.#apply(arrival, "lenient");
    }
  }

  /**
   * One entry, one transaction. Strictly, it throws MlsError `untrusted` and changes nothing for an unknown
   * device.
   */
  #apply(arrival: Arrival, reading: Reading): Promise<void> {
    return this.#state.transaction(async (tx) => {
      if (arrival.cursor) tx.set("cursor", arrival.cursor);
      if (arrival.wasEarly) tx.delete("early", arrival.id);
      else if (!tx.markSeen(arrival.id)) return;
      try {
        if (arrival.kind === EntryKind.MESSAGE) await this.#reader.applyMessage(tx, { arrival, reading });
        else if (arrival.kind === EntryKind.NOTICE) this.#applyNotice(tx, arrival);
      } catch (error) {
        const isRefusal = error instanceof MlsError &&
          (reading === "lenient" || error.reason !== "untrusted");
        if (!isRefusal) throw error;
        this.#reader.refuse(tx, { arrival, error });
      }
    });
  }

  #applyNotice(tx: StateTransaction, arrival: Arrival): void {
    const onKeyPackagesLow = this.#onKeyPackagesLow;
    applyNotice(tx, { ...arrival, now: this.#clock.now(), onKeyPackagesLow });
  }

  /** Asks the server for the accounts behind devices that are not known here. */
  async #learnDevices({ payload }: Arrival): Promise<void> {
    const unknown = new Map<AccountId, string>();
    const context = this.#groups.lenientContext(unknown);
    try {
      await this.#look(context, payload);
    } catch (error) {
      if (!(error instanceof MlsError)) throw error; // only who is in it was wanted
    }
    await this.#learn(unknown);
  }

  /** Another server that cannot be reached, or answers nonsense, holds nothing up: its users stay strangers. */
  async #learn(accounts: ReadonlyMap<AccountId, string>): Promise<void> {
    for (const [accountId, domain] of accounts) {
      try {
        await this.#contacts.refresh({ accountId, domain });
      } catch (error) {
        // What the own server cannot do now is tried again; an answer that was refused stays so.
        const isSettled = error instanceof QpqError && (domain !== "" || error.code === "internal");
        if (!isSettled) throw error;
        log.warn("an account was not looked up: {reason}", { domain, reason: error.message });
      }
    }
  }

  /** Reads a message without keeping anything. */
  async #look(context: MlsContext, payload: Uint8Array): Promise<void> {
    const header = readHeader(payload);
    if (header.kind === "welcome") {
      await joinGroup(context, payload, (ref) => this.#state.get("keyPackages", ref));
      return;
    }
    const row = this.#state.get("groups", header.groupId);
    if (row) await processMessage(context, this.#groups.loadIn(context, row), payload);
  }
}

function isUntrusted(error: unknown): boolean {
  return error instanceof MlsError && error.reason === "untrusted";
}
