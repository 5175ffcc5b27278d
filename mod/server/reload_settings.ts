/**
 * The settings in force: those of the start, of which a reload replaces the live ones. Parts of the server keep a
 * view, which shows the values of the moment.
 */
import type { AuthLimits } from "../auth/authenticator.ts";
import { buildSettings, OPTION_KEYS, optionOf, type Settings, valueOf } from "../config/options.ts";
import type { BlobLimits } from "../delivery/blobs.ts";
import type { ExpiryTimes } from "../delivery/expiry.ts";
import type { DeliveryLimits } from "../delivery/queues.ts";

/** Settings that change while the server runs. */
export class LiveSettings {
  #current: Settings;

  constructor(settings: Settings) {
    this.#current = settings;
  }

  get current(): Settings {
    return this.#current;
  }

  /** In force from now on: every view shows it. */
  replace(settings: Settings): void {
    this.#current = settings;
  }

  /** An object with the properties of `make`'s result, each read from the settings of the moment. */
  view<View extends object>(make: (settings: Settings) => View): View {
    let madeFrom = this.#current;
    let made = make(madeFrom);
    const read = () => {
      if (madeFrom !== this.#current) {
        madeFrom = this.#current;
        made = make(madeFrom);
      }
      return made;
    };
    const view = {};
    for (const key of Object.keys(made) as (keyof View)[]) {
      Object.defineProperty(view, key, { enumerable: true, get: () => read()[key] });
    }
    return view as View;
  }
}

/** `before`, with the live options of `after`. */
export function withLiveOptions(before: Settings, after: Settings): Settings {
  const values = OPTION_KEYS.map((key) =>
    [key, valueOf(optionOf(key).apply === "live" ? after : before, key)] as const
  );
  return buildSettings(new Map(values));
}

/** Another server tries this long (if its setting is the same as ours), and a day more allows for its clock. */
function relayedIdempotencyMs(outboxTtlMs: number): number {
  return outboxTtlMs + 86_400_000;
}

/** Bounds of the delivery queues. */
export function deliveryLimitsOf({ limits, federation }: Settings): DeliveryLimits {
  const enqueue = {
    queueDepthMax: limits.queueDepthMax,
    queueBytesMax: limits.queueBytesMax,
    senderShare: limits.queueSharePercent / 100,
    senderBytesPerDay: limits.senderBytesPerDay,
    idempotencyMs: limits.idempotencyTtlMs,
    idempotencyCountMax: limits.idempotencyCountMax,
    guardsPerDay: limits.guardsPerDay,
    outboxDepthMax: federation.outboxDepthMax,
    outboxBytesMax: federation.outboxBytesMax,
  };
  return {
    partsMax: 4,
    recipientsMax: limits.recipientsMax,
    payloadBytesMax: limits.payloadBytesMax,
    enqueueBytesMax: 4 << 20,
    ttlDefaultMs: limits.ttlDefaultMs,
    ttlMaxMs: limits.ttlMaxMs,
    fetchEntriesMax: limits.fetchEntriesMax,
    fetchBytesMax: 4 << 20,
    waitMsMax: limits.waitMaxMs,
    waitersMax: limits.waitersMax,
    enqueue,
    relayed: {
      ...enqueue,
      senderBytesPerDay: federation.peerBytesPerDay,
      idempotencyMs: relayedIdempotencyMs(federation.outboxTtlMs),
      idempotencyCountMax: federation.peerMessageIdsMax,
    },
  };
}

/** Bounds of blobs. */
export function blobLimitsOf({ limits }: Settings): BlobLimits {
  return {
    blobBytesMax: limits.blobBytesMax,
    blobQuotaBytes: limits.blobQuotaBytes,
    ttlDefaultMs: limits.ttlDefaultMs,
    ttlMaxMs: limits.ttlMaxMs,
    uploadsMax: limits.blobUploadsMax,
  };
}

/** Bounds of accounts and sessions. */
export function authLimitsOf(settings: Settings): Omit<AuthLimits, "pendingMax"> {
  return {
    devicesMax: settings.limits.devicesMax,
    sessionIdleMs: settings.sessionIdleTtlMs,
    sessionMs: settings.sessionTtlMs,
    invitationTtlMs: settings.limits.invitationTtlMs,
    invitationsOpenMax: settings.limits.invitationsOpenMax,
  };
}

/** How long things live. */
export function expiryTimesOf(settings: Settings): ExpiryTimes {
  return {
    idempotencyMs: settings.limits.idempotencyTtlMs,
    relayedIdempotencyMs: relayedIdempotencyMs(settings.federation.outboxTtlMs),
    guardIdleMs: settings.limits.guardIdleTtlMs,
    sessionIdleMs: settings.sessionIdleTtlMs,
    sessionMs: settings.sessionTtlMs,
    deviceIdleMs: settings.deviceIdleTtlMs,
  };
}

/** What federation needs of the settings; each value is read when it is used. */
export function federationViewOf({ federation, limits }: Settings) {
  return {
    mode: federation.mode,
    peers: federation.peers ?? [],
    connectionsMax: federation.connectionsMax,
    outboxTtlMs: federation.outboxTtlMs,
    outboxDepthMax: federation.outboxDepthMax,
    outboxBytesMax: federation.outboxBytesMax,
    peerMessagesPerSecond: federation.peerMessagesPerSecond,
    peerBytesPerDay: federation.peerBytesPerDay,
    peerClaimsPerMinute: federation.peerClaimsPerMinute,
    peerMessageIdsMax: federation.peerMessageIdsMax,
    blobCacheBytes: federation.blobCacheBytes,
    blobCacheTtlMs: federation.blobCacheTtlMs,
    recipientDomainsMax: federation.recipientDomainsMax,
    frameDeadlineMs: limits.frameDeadlineMs,
  };
}

/** Where federation listens and how it reaches others; null when it is off. Waits for a restart. */
export function federationPlaceOf({ federation }: Settings) {
  const { domain, listen, engine, dns } = federation;
  return domain === null ? null : { domain, listen, engine, dns };
}
