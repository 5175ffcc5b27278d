/** Commit guards: which epoch a guarded group is in, and the hash of the token that leaves it. */
import { equal, hex } from "../../base/bytes.ts";
import type { Connection, Prepared } from "./connection.ts";
import type { AccountSums, Ledger } from "./ledger.ts";

/** A commit guard with byte strings instead of ids. */
export interface Guard {
  readonly groupId: Uint8Array;
  readonly epoch: number;
  readonly tokenSha256: Uint8Array;
  readonly nextTokenSha256: Uint8Array;
}

/** Why a message does not pass, or `pass`. */
export type GuardVerdict =
  | { status: "pass"; begins: boolean }
  | { status: "guardRequired" | "guardLimit" }
  | { status: "wrongEpoch"; currentEpoch: number };

/** Judges and moves guards. */
export class Guards {
  readonly #ledger: Ledger;
  readonly #find: Prepared<{ epoch: number; token_sha256: Uint8Array }>;
  readonly #insert: Prepared<never>;
  readonly #update: Prepared<never>;
  readonly #expire: Prepared<never>;

  constructor(connection: Connection, ledger: Ledger) {
    this.#ledger = ledger;
    this.#find = connection.prepare("SELECT epoch, token_sha256 FROM guards WHERE group_id = ?");
    this.#insert = connection.prepare(
      "INSERT INTO guards (epoch, token_sha256, used_at, group_id) VALUES (?, ?, ?, ?)",
    );
    this.#update = connection.prepare(
      "UPDATE guards SET epoch = ?, token_sha256 = ?, used_at = ? WHERE group_id = ?",
    );
    this.#expire = connection.prepare("DELETE FROM guards WHERE used_at < ? ORDER BY used_at LIMIT ?");
  }

  /** May a message that commits to `commitsTo` pass with this guard? Changes nothing. */
  judge(
    guard: Guard | null,
    context: { commitsTo: readonly Uint8Array[]; sums: AccountSums; guardsPerDay: number },
  ): GuardVerdict {
    const guarded = guard && hex(guard.groupId);
    for (const groupId of context.commitsTo) {
      if (hex(groupId) !== guarded && this.#find.get(groupId)) return { status: "guardRequired" };
    }
    if (!guard) return { status: "pass", begins: false };
    const row = this.#find.get(guard.groupId);
    if (!row) {
      if (context.sums.guards >= context.guardsPerDay) return { status: "guardLimit" };
      return { status: "pass", begins: true };
    }
    if (row.epoch !== guard.epoch || !equal(row.token_sha256, guard.tokenSha256)) {
      return { status: "wrongEpoch", currentEpoch: row.epoch };
    }
    return { status: "pass", begins: false };
  }

  /** The guarded commit was accepted: the group is in the next epoch. */
  advance(guard: Guard, context: { begins: boolean; sums: AccountSums; now: number }): void {
    const { begins, sums, now } = context;
    (begins ? this.#insert : this.#update).run(guard.epoch + 1, guard.nextTokenSha256, now, guard.groupId);
    if (!begins) return;
    sums.guards += 1;
    this.#ledger.sumsChanged(sums);
  }

  /** Forgets guards not used since `before`, at most `limit`. */
  expire(before: number, limit: number): number {
    return this.#expire.run(before, limit);
  }
}
