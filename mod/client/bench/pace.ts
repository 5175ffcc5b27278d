/**
 * When the next operation is due. Closed loop: as soon as there is room for it. Open loop: by a schedule that waits
 * for nobody, and an operation's latency begins when it was due; so a server that stalls for a second shows a
 * second's worth of late operations, and not a single one (coordinated omission).
 */

/** Says when operations are due. */
export interface Pace {
  /** Something may become due without anything else happening: whoever asks has to look at the clock. */
  readonly isScheduled: boolean;
  /** When the next operation was due (ms of performance.now()), which is not after `now`; NaN: none is due yet. */
  take(now: number): number;
  /** How long until the next one is due; 0 when it is. */
  msUntilDue(now: number): number;
}

/** Operations are due as soon as they can be sent. */
export const CLOSED_LOOP: Pace = { isScheduled: false, take: (now) => now, msUntilDue: () => 0 };

/** One operation after another in equal distances, from the first look at the clock on. */
export class OpenLoop implements Pace {
  readonly isScheduled = true;
  readonly #intervalMs: number;
  readonly #offsetMs: number;
  #beganAt = NaN;
  #taken = 0;

  /** `share` (0 to 1) of an interval passes before the first, so that several loops do not beat together. */
  constructor(perSecond: number, options: { share?: number } = {}) {
    if (!(perSecond > 0)) throw new RangeError(`A rate must be above 0: ${perSecond}`);
    this.#intervalMs = 1000 / perSecond;
    this.#offsetMs = (options.share ?? 0) * this.#intervalMs;
  }

  take(now: number): number {
    const due = this.#due(now);
    if (due > now) return NaN;
    this.#taken++;
    return due;
  }

  msUntilDue(now: number): number {
    return Math.max(0, this.#due(now) - now);
  }

  #due(now: number): number {
    if (Number.isNaN(this.#beganAt)) this.#beganAt = now + this.#offsetMs;
    return this.#beganAt + this.#taken * this.#intervalMs;
  }
}

/** The pace of `perSecond`; null is a closed loop. */
export function paceOf(perSecond: number | null): Pace {
  return perSecond === null ? CLOSED_LOOP : new OpenLoop(perSecond);
}

/** The paces of `lanes` that together make `perSecond`; null is a closed loop. */
export function pacesOf(perSecond: number | null, lanes: number): Pace[] {
  return Array.from(
    { length: lanes },
    (_, index) =>
      perSecond === null ? CLOSED_LOOP : new OpenLoop(perSecond / lanes, { share: index / lanes }),
  );
}
