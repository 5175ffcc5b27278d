/** The verbs of ServerStore inside the worker: OPAQUE setups, numbers, the clock mark. */
import type { OpaqueSetup, ServerStore, StoreCounts } from "../store.ts";
import type { Connection, Prepared } from "./connection.ts";
import type { Ledger } from "./ledger.ts";

interface SetupRow {
  setup_id: number;
  suite_id: number;
  secret: Uint8Array;
  created_at: number;
  retired_at: number | null;
}

type NewSetup = Parameters<ServerStore["initOpaqueSetup"]>[0];

/** The server's own rows. */
export class ServerState {
  readonly #ledger: Ledger;
  readonly #identity: Prepared<{ incarnation: Uint8Array; realm_id: string }>;
  readonly #setups: Prepared<SetupRow>;
  readonly #insertSetup: Prepared<never>;
  readonly #mark: Prepared<{ mark: number | null }>;
  readonly #setMark: Prepared<never>;

  constructor(connection: Connection, ledger: Ledger) {
    this.#ledger = ledger;
    this.#identity = connection.prepare("SELECT incarnation, realm_id FROM store WHERE id = 1");
    this.#setups = connection.prepare(
      `SELECT setup_id, suite_id, secret, created_at, retired_at FROM opaque_setups WHERE setup_id > 0
       ORDER BY setup_id`,
    );
    this.#insertSetup = connection.prepare(
      "INSERT INTO opaque_setups (suite_id, secret, created_at) VALUES (?, ?, ?)",
    );
    this.#mark = connection.prepare("SELECT mark FROM store WHERE id = 1");
    this.#setMark = connection.prepare("UPDATE store SET mark = ? WHERE id = 1");
  }

  /** Who the store is. */
  identity(): { incarnation: Uint8Array; realmId: string } {
    const row = this.#identity.get()!;
    return { incarnation: row.incarnation, realmId: row.realm_id };
  }

  opaqueSetups(): OpaqueSetup[] {
    return this.#setups.all().map((row) => ({
      setupId: row.setup_id,
      suiteId: row.suite_id,
      secret: row.secret,
      createdAt: row.created_at,
      retiredAt: row.retired_at,
    }));
  }

  initOpaqueSetup(setup: NewSetup): { setups: OpaqueSetup[]; added: boolean } {
    const setups = this.opaqueSetups();
    if (setups.length > 0) return { setups, added: false };
    this.#insertSetup.run(setup.suiteId, setup.secret, setup.createdAt);
    return { setups: this.opaqueSetups(), added: true };
  }

  counts(): StoreCounts {
    return { ...this.#ledger.totals.view() };
  }

  writeMark(now: number): number | null {
    const { mark } = this.#mark.get()!;
    this.#setMark.run(now);
    return mark;
  }
}
