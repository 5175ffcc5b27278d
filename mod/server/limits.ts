/**
 * Named token buckets: by address, by account, by (claimer, target). A refusal carries retry-after, counts, and
 * is logged once per window. Addresses are IPv4 addresses or IPv6 /64s; they never reach the log.
 */
import type { Clock } from "../base/clock.ts";
import { delay } from "../base/clock.ts";
import { QpqError } from "../base/errors.ts";
import { logger } from "../base/log.ts";
import { type Rate, RateLimiter } from "../base/rate_limiter.ts";
import type { LimitUse } from "../admin/operations_live.ts";
import type { Settings } from "../config/options.ts";
import type { Metrics } from "../observe/metrics.ts";
import type { RateClass } from "../protocol/methods.ts";
import type { CloseCode } from "../protocol/close_codes.ts";
import type { ConnectionState } from "./context.ts";
import type { Registry } from "./registry.ts";

const log = logger("limits");

/** A refusal of one kind is logged once in this time. */
const LOG_WINDOW_MS = 60_000;
/** Beyond the account-wide bucket a login is slowed down by this much, and never refused. */
const SLOW_LOGIN_MS = 1_500;

/**
 * Every limit by name: label values of `qpq_rate_limit_hits_total`. The last eight are kept elsewhere: uploads at once
 * (all, of an account), open invitations, messages refused for somebody's full queue or used-up share of it, a
 * sender's bytes a day, its new guarded groups a day; and for each other server its requests and bytes.
 */
export const LIMIT_NAMES = [
  "handshakes",
  "handshakeRate",
  "connections",
  "connectionsPerAddress",
  "connectionRate",
  "helloRate",
  "registrationRate",
  "loginRate",
  "loginRateAddress",
  "loginRateAccount",
  "resumeRate",
  "requestRate",
  "anonymousRequestRate",
  "claimRate",
  "claimBudgetTarget",
  "claimBudgetClaimer",
  "malformedRate",
  "memory",
  "sendQueue",
  "blobUploads",
  "blobUploadsAccount",
  "invitationsOpen",
  "queue",
  "senderBytesPerDay",
  "guardsPerDay",
  "peerRequests",
  "peerBytes",
  "peerClaims",
] as const;

/** Name of a limit. */
export type LimitName = (typeof LIMIT_NAMES)[number];

/** What these refuse is a connection. */
const CONNECTION_LIMITS: readonly LimitName[] = [
  "handshakes",
  "handshakeRate",
  "connections",
  "connectionsPerAddress",
  "connectionRate",
];

type BucketName = keyof ReturnType<typeof bucketRates>;

/** The server's limits. */
export class Limits {
  readonly #clock: Clock;
  readonly #metrics: Metrics;
  readonly #registry: Registry;
  #settings: Settings["limits"];
  readonly #buckets: Record<BucketName, RateLimiter>;
  readonly #loggedAt = new Map<LimitName, number>();

  constructor(deps: { clock: Clock; metrics: Metrics; registry: Registry; settings: Settings["limits"] }) {
    this.#clock = deps.clock;
    this.#metrics = deps.metrics;
    this.#registry = deps.registry;
    this.#settings = deps.settings;
    const rates = bucketRates(deps.settings);
    this.#buckets = Object.fromEntries(
      Object.entries(rates).map((
        [name, rate],
      ) => [name, new RateLimiter({ ...rate, clock: deps.clock, keysMax: deps.settings.rateKeysMax })]),
    ) as Record<BucketName, RateLimiter>;
  }

  /** The values in force now change; what is in the buckets stays. */
  update(settings: Settings["limits"]): void {
    this.#settings = settings;
    const rates = bucketRates(settings);
    for (const name of Object.keys(rates) as BucketName[]) this.#buckets[name].setRate(rates[name]);
  }

  /** May this address have one more connection? The code to close it with if not. */
  admitConnection(limitKey: string, maskedAddress: string): CloseCode | null {
    if (this.#registry.count >= this.#settings.connectionsMax) {
      this.hit("connections", maskedAddress);
      return "overloaded";
    }
    if (this.#settings.sharedAddresses) return null;
    if (this.#registry.countFrom(limitKey) >= this.#settings.connectionsPerAddress) {
      this.hit("connectionsPerAddress", maskedAddress);
      return "rateLimited";
    }
    if (this.#buckets.connectionRate.take(limitKey) === 0) return null;
    this.hit("connectionRate", maskedAddress);
    return "rateLimited";
  }

  /** Charges a request to its class; throws `rateLimited`. */
  charge(rateClass: RateClass, connection: ConnectionState): void {
    switch (rateClass) {
      case "hello":
        return this.#chargeAddress("helloRate", connection);
      case "registration":
        return this.#chargeAddress("registrationRate", connection);
      case "resume":
        return this.#chargeAddress("resumeRate", connection);
      case "login": // charged by (address, account) in chargeLogin
      case "claim": // charged by claimer and target in claim
      case "request":
        if (!connection.auth.login) return this.#chargeAddress("anonymousRequestRate", connection);
        return this.#take("requestRate", connection.auth.login.accountId, connection);
    }
  }

  /**
   * Charges a login attempt: refused beyond the (address, account) bucket; beyond the account-wide one it is
   * only slowed down, so that nobody can lock the owner out.
   */
  async chargeLogin(connection: ConnectionState, userName: string): Promise<void> {
    this.#chargeAddress("loginRateAddress", connection);
    this.#take("loginRate", this.#loginKey(connection, userName), connection);
    if (this.#buckets.loginRateAccount.take(userName) === 0) return;
    this.hit("loginRateAccount", connection.maskedAddress);
    await delay(this.#clock, SLOW_LOGIN_MS);
  }

  /** A login succeeded: it costs nothing. */
  refundLogin(connection: { limitKey: string }, userName: string): void {
    this.#buckets.loginRateAddress.refund(connection.limitKey);
    this.#buckets.loginRate.refund(this.#loginKey(connection, userName));
    this.#buckets.loginRateAccount.refund(userName);
  }

  /** Charges a claim of KeyPackages. True: a fresh package; false: only the last-resort one. */
  claim(connection: ConnectionState, target: string): boolean {
    return this.#claim(requesterKey(connection), { target, maskedAddress: connection.maskedAddress });
  }

  /** The same for users of another server, which count as one claimer for each target. */
  claimForPeer(domain: string, target: string): boolean {
    return this.#claim(`@${domain}`, { target, maskedAddress: domain });
  }

  #claim(claimer: string, { target, maskedAddress }: { target: string; maskedAddress: string }): boolean {
    const wanted: [BucketName, string][] = [
      ["claimRate", `${claimer} ${target}`],
      // A peer has a budget of its own: federation.peer_claims_per_minute.
      ...(claimer.startsWith("@") ? [] : [["claimBudgetClaimer", claimer] as [BucketName, string]]),
      ["claimBudgetTarget", target],
    ];
    for (const [name, key] of wanted) {
      if (this.#buckets[name].take(key) === 0) continue;
      this.hit(name, maskedAddress);
      return false;
    }
    return true;
  }

  /** The heaviest users of each limit, with full addresses: for the operator's control socket only. */
  top(count: number): LimitUse[] {
    const perAddress = this.#settings.connectionsPerAddress;
    const connections = this.#registry.topAddresses(count).map(({ limitKey, connections }) => ({
      limit: "connectionsPerAddress",
      key: limitKey,
      left: Math.max(0, perAddress - connections),
      taken: connections,
      refused: 0,
    }));
    const buckets = Object.entries(this.#buckets).flatMap(([limit, bucket]) =>
      bucket.top(count).map(({ key, tokens, taken, refused }) => ({
        limit,
        key,
        left: Math.floor(tokens),
        taken,
        refused,
      }))
    );
    return [...connections, ...buckets];
  }

  /** With shared addresses (all clients behind one NAT) nothing is charged to an address. */
  #chargeAddress(name: BucketName, connection: ConnectionState): void {
    if (!this.#settings.sharedAddresses) this.#take(name, connection.limitKey, connection);
  }

  #loginKey(connection: { limitKey: string }, userName: string): string {
    return this.#settings.sharedAddresses ? userName : `${connection.limitKey} ${userName}`;
  }

  #take(name: BucketName, key: string, connection: ConnectionState): void {
    const retryAfterMs = this.#buckets[name].take(key);
    if (retryAfterMs === 0) return;
    this.hit(name, connection.maskedAddress);
    throw new QpqError("rateLimited", `The limit ${name} is used up`, { retryAfterMs });
  }

  /** Counts and tells a refusal by a limit that is kept elsewhere. */
  hit(name: LimitName, maskedAddress?: string): void {
    this.#metrics.rateLimitHit(name);
    const now = this.#clock.monotonic();
    const loggedAt = this.#loggedAt.get(name);
    if (loggedAt !== undefined && now - loggedAt < LOG_WINDOW_MS) return;
    this.#loggedAt.set(name, now);
    const isConnection = CONNECTION_LIMITS.includes(name);
    const message = isConnection ? "connection rate limit exceeded" : "rate limit exceeded";
    log.warn(message, { limit: name, address: maskedAddress });
  }
}

/** Who pays for a request: the account, or the address before a login. */
function requesterKey(connection: ConnectionState): string {
  return connection.auth.login?.accountId ?? connection.limitKey;
}

/** Bursts: what a person or a reconnecting client does at once. */
function bucketRates(settings: Settings["limits"]) {
  const perMinute = (count: number): Rate => ({ perSecond: count / 60, burst: count });
  const perHour = (count: number): Rate => ({ perSecond: count / 3600, burst: count });
  return {
    connectionRate: perMinute(settings.connectionRate),
    helloRate: perMinute(settings.helloRate),
    registrationRate: perHour(settings.registrationRate),
    loginRate: perMinute(settings.loginRate),
    loginRateAddress: perMinute(settings.loginRateAddress),
    loginRateAccount: perMinute(settings.loginRateAccount),
    resumeRate: perMinute(settings.resumeRate),
    requestRate: { perSecond: settings.requestRate, burst: settings.requestBurst },
    anonymousRequestRate: {
      perSecond: settings.anonymousRequestRate,
      burst: 5 * settings.anonymousRequestRate,
    },
    claimRate: perHour(settings.claimRate),
    claimBudgetTarget: perHour(settings.claimBudgetTarget),
    claimBudgetClaimer: perHour(settings.claimBudgetClaimer),
  } satisfies Partial<Record<LimitName, Rate>>;
}
