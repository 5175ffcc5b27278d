/** Registration and change of password: the two exchanges that make a new OPAQUE record. */
import { assert } from "../base/assert.ts";
import type { Clock } from "../base/clock.ts";
import { QpqError } from "../base/errors.ts";
import { type AccountId, randomId } from "../base/ids.ts";
import { OPAQUE_SUITES } from "../base/opaque_suite.ts";
import { normaliseUserName } from "../base/user_name.ts";
import type { AccountStore, Credential, OpaqueSetup } from "../store/store.ts";
import {
  type AuthEvents,
  type ConnectionAuth,
  type PendingWork,
  requireFreshLogin,
  requireLogin,
} from "./connection_auth.ts";
import type { OpaquePool } from "./opaque.ts";
import type { PendingExchanges } from "./pending.ts";
import type { OpaqueSetups } from "./setups.ts";
import { hashInvitation } from "./tokens.ts";

/** Most bytes of a wrapped account key. */
export const WRAPPED_ACCOUNT_KEY_BYTES_MAX = 256;

/** Ed25519. */
const PUBLIC_KEY_BYTES = 32;

/** First half of a registration. `invitation`: "" without one. */
export interface RegisterStart {
  readonly userName: string;
  readonly suiteId: number;
  readonly request: Uint8Array;
  readonly invitation: string;
}

/** Second half of a registration. */
export interface RegisterFinish {
  readonly handle: number;
  readonly record: Uint8Array;
  readonly accountKey: Uint8Array;
  readonly wrappedAccountKey: Uint8Array;
}

/** First half of a change of password. */
export interface ChangePasswordStart {
  readonly suiteId: number;
  readonly request: Uint8Array;
}

/** Second half of a change of password. */
export interface ChangePasswordFinish {
  readonly handle: number;
  readonly record: Uint8Array;
  readonly wrappedAccountKey: Uint8Array;
}

/** First answer of either. */
export interface RecordStarted {
  readonly handle: number;
  readonly response: Uint8Array;
}

type RecordWork = Extract<PendingWork, { kind: "registration" | "passwordChange" }>;

/** The parts that making records needs. */
export interface RegistrationDeps {
  readonly store: AccountStore;
  readonly pool: OpaquePool;
  readonly setups: OpaqueSetups;
  readonly pending: PendingExchanges;
  readonly clock: Clock;
  readonly events: AuthEvents;
}

/** Makes records. */
export class Registration {
  readonly #deps: RegistrationDeps;

  constructor(deps: RegistrationDeps) {
    this.#deps = deps;
  }

  /**
   * Callers with the access token learn that a name is taken; those with an invitation get an answer that
   * looks the same whether name and invitation are good or not.
   */
  async registerStart(auth: ConnectionAuth, request: RegisterStart): Promise<RecordStarted> {
    const { store, setups, pool } = this.#deps;
    const { suiteId } = request;
    requireSuite(pool, suiteId);
    const userName = normaliseUserName(request.userName);
    const invited = request.invitation !== "";
    if (!auth.admitted && !invited) {
      throw new QpqError("tokenRequired", "Cannot register without the access token or an invitation");
    }
    pool.requireRoom(suiteId);
    if (!invited && await store.findAccountByName(userName)) throw nameTaken();
    const invitationSha256 = invited ? await hashInvitation(request.invitation) : null;
    const { setupId } = setups.newest(suiteId);
    const work = { kind: "registration" as const, userName, suiteId, setupId, invitationSha256 };
    return this.#start(auth, { work, userName, request: request.request });
  }

  /** Stores the account. An invitation is judged and used up here, and nowhere else. */
  async registerFinish(auth: ConnectionAuth, request: RegisterFinish): Promise<{ accountId: AccountId }> {
    const { store, clock, events, pending } = this.#deps;
    checkKeys(request);
    if (request.accountKey.length !== PUBLIC_KEY_BYTES) {
      throw new QpqError(
        "malformedRequest",
        `Cannot use an account key of ${request.accountKey.length} bytes`,
      );
    }
    const work = pending.take(auth, request.handle, "registration");
    if (!work) throw unknownHandle();
    const credential = await this.#credential(work, request);
    const newId = randomId<AccountId>();
    const result = await store.createAccount({
      accountId: newId,
      userName: work.userName,
      credential,
      accountKey: request.accountKey,
      invitationSha256: work.invitationSha256,
      now: clock.now(),
    });
    if (result.status !== "created") {
      if (result.status === "nameTaken" && auth.admitted) throw nameTaken();
      throw new QpqError("registrationRefused", `Cannot register: ${result.status}`);
    }
    // Another id: the invitation was a reset, which dropped that account's devices.
    if (result.accountId !== newId) events.onSessionsEnded({ accountId: result.accountId });
    return { accountId: result.accountId };
  }

  /** Begins a new record for the caller's account. The caller has proven the password just before. */
  async changePasswordStart(auth: ConnectionAuth, request: ChangePasswordStart): Promise<RecordStarted> {
    const { accountId } = requireFreshLogin(auth, this.#deps.clock);
    const { suiteId } = request;
    requireSuite(this.#deps.pool, suiteId);
    const account = await this.#deps.store.findAccount(accountId);
    if (!account) throw new QpqError("notFound", "Cannot change the password: the account is gone");
    if (OPAQUE_SUITES.indexOf(suiteId) > OPAQUE_SUITES.indexOf(account.credential.suiteId)) {
      throw new QpqError(
        "malformedRequest",
        "Cannot change the password: an account never gets a weaker suite",
      );
    }
    const { setupId } = this.#deps.setups.newest(suiteId);
    const work = { kind: "passwordChange" as const, accountId, suiteId, setupId };
    return this.#start(auth, { work, userName: account.userName, request: request.request });
  }

  /**
   * Stores the new record and wrapped account key together, and ends the account's other sessions. The first one after
   * a login that answered `reregister` ends none: the client moves the same password to the newest setup.
   */
  async changePasswordFinish(auth: ConnectionAuth, request: ChangePasswordFinish): Promise<void> {
    const login = requireLogin(auth);
    const { accountId, sessionId } = login;
    checkKeys(request);
    const work = this.#deps.pending.take(auth, request.handle, "passwordChange");
    if (!work || work.accountId !== accountId) throw unknownHandle();
    const credential = await this.#credential(work, request);
    const renewal = login.renewsRecord;
    login.renewsRecord = false;
    const changed = await this.#deps.store.changeCredential({
      accountId,
      credential,
      keepSession: renewal ? "all" : sessionId,
    });
    if (!changed) throw new QpqError("notFound", "Cannot change the password: the account is gone");
    if (!renewal) this.#deps.events.onSessionsEnded({ accountId, except: sessionId });
  }

  async #start(
    auth: ConnectionAuth,
    input: { work: RecordWork; userName: string; request: Uint8Array },
  ): Promise<RecordStarted> {
    const { work, userName, request } = input;
    const { secret: setup } = await this.#setup(work.setupId);
    const { handle, answer } = await this.#deps.pending.begin(auth, async () => {
      const { suiteId } = work;
      const response = await this.#deps.pool.registrationResponse({ suiteId, setup, userName, request });
      return { work, answer: response };
    });
    return { handle, response: answer };
  }

  /** A credential of `work` whose record is known to be usable. */
  async #credential(
    work: RecordWork,
    { record, wrappedAccountKey }: { record: Uint8Array; wrappedAccountKey: Uint8Array },
  ): Promise<Credential> {
    const { suiteId, setupId } = work;
    const setup = await this.#setup(setupId);
    if (setup.retiredAt !== null) throw unknownHandle(); // since the exchange was begun: the record would be useless
    await this.#deps.pool.checkRecord({ suiteId, setup: setup.secret, record });
    return { suiteId, setupId, record, wrappedAccountKey };
  }

  async #setup(setupId: number): Promise<OpaqueSetup> {
    const setup = await this.#deps.setups.find(setupId);
    assert(setup, `OPAQUE setup ${setupId} went away within an exchange`);
    return setup;
  }
}

function requireSuite(pool: OpaquePool, suiteId: number): void {
  if (pool.answers(suiteId)) return;
  throw new QpqError("malformedRequest", `Cannot use OPAQUE suite ${suiteId}: not known or not enabled`);
}

function checkKeys({ wrappedAccountKey }: { wrappedAccountKey: Uint8Array }): void {
  const length = wrappedAccountKey.length;
  if (length > 0 && length <= WRAPPED_ACCOUNT_KEY_BYTES_MAX) return;
  throw new QpqError("malformedRequest", `Cannot keep a wrapped account key of ${length} bytes`);
}

function unknownHandle(): QpqError {
  return new QpqError("malformedRequest", "Cannot finish an exchange that was not begun here within 60 s");
}

function nameTaken(): QpqError {
  return new QpqError("userNameTaken", "Cannot register: the name is taken");
}
