/** Live connections: counted by address, found by session, device or account when those end. */
import type { ConnectionAuth, SessionsEnded } from "../auth/authenticator.ts";
import type { CloseCode } from "../protocol/close_codes.ts";

/** What the registry knows of a connection. */
export interface LiveConnection {
  /** Address group that limits count by. */
  readonly limitKey: string;
  /** Who is logged in; null before. */
  readonly login: ConnectionAuth["login"];
  readonly auth: ConnectionAuth;
  close(code: CloseCode): void;
  /** Like close, but the reply to the request that ended the session may still leave. */
  endSession(): void;
}

/** All live connections of this process. */
export class Registry {
  readonly #connections = new Map<ConnectionAuth, LiveConnection>();
  readonly #byAddress = new Map<string, number>();
  readonly #byAccount = new Map<string, Set<LiveConnection>>();
  #loggedInCount = 0;

  /** Live connections now. */
  get count(): number {
    return this.#connections.size;
  }

  /** Live connections from an address group. */
  countFrom(limitKey: string): number {
    return this.#byAddress.get(limitKey) ?? 0;
  }

  /** The address groups with the most live connections. */
  topAddresses(count: number): { limitKey: string; connections: number }[] {
    return [...this.#byAddress].map(([limitKey, connections]) => ({ limitKey, connections }))
      .sort((a, b) => b.connections - a.connections).slice(0, count);
  }

  /** Live connections from the address group that has most. */
  get countFromBusiest(): number {
    let most = 0;
    for (const count of this.#byAddress.values()) most = Math.max(most, count);
    return most;
  }

  /** Live connections that are logged in. */
  get loggedInCount(): number {
    return this.#loggedInCount;
  }

  /** The connection with this authentication state; undefined when it is gone. */
  find(auth: ConnectionAuth): LiveConnection | undefined {
    return this.#connections.get(auth);
  }

  add(connection: LiveConnection): void {
    this.#connections.set(connection.auth, connection);
    this.#byAddress.set(connection.limitKey, this.countFrom(connection.limitKey) + 1);
  }

  /** Call it when the connection has logged in. */
  loggedIn(connection: LiveConnection): void {
    const { accountId } = connection.login!;
    this.#loggedInCount++;
    const connections = this.#byAccount.get(accountId);
    if (connections) connections.add(connection);
    else this.#byAccount.set(accountId, new Set([connection]));
  }

  remove(connection: LiveConnection): void {
    if (!this.#connections.delete(connection.auth)) return;
    const left = this.countFrom(connection.limitKey) - 1;
    if (left > 0) this.#byAddress.set(connection.limitKey, left);
    else this.#byAddress.delete(connection.limitKey);
    if (!connection.login) return;
    const connections = this.#byAccount.get(connection.login.accountId);
    if (connections?.delete(connection)) this.#loggedInCount--;
    if (connections?.size === 0) this.#byAccount.delete(connection.login.accountId);
  }

  /** Closes the connections of sessions that have ended. */
  closeEnded(ended: SessionsEnded): void {
    for (const connection of [...(this.#byAccount.get(ended.accountId) ?? [])]) {
      const login = connection.login!;
      const concerned = (!ended.deviceId || ended.deviceId === login.deviceId) &&
        (!ended.sessionId || ended.sessionId === login.sessionId) && ended.except !== login.sessionId;
      if (!concerned) continue;
      if (connection.auth === ended.initiator) connection.endSession();
      else connection.close("sessionEnded");
    }
  }

  closeAll(code: CloseCode): void {
    for (const connection of [...this.#connections.values()]) connection.close(code);
  }
}
