/**
 * What a connection pays for requests that no working client sends in numbers: malformed ones, and those that go on
 * after a refusal. Each costs the server almost what a good one does and no rate class is charged for most of them.
 * Beyond its rate a connection is read more slowly, so that its own flow control holds it back; its other work and
 * other connections go on.
 */
import type { Clock } from "../base/clock.ts";
import type { ErrorCode } from "../base/errors.ts";
import type { Limits } from "./limits.ts";

/** Seconds' worth of bad requests that may come at once. */
const BURST_S = 5;

const BAD: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "duplicateRequest",
  "helloRepeated",
  "helloRequired",
  "loginRequired",
  "malformedRequest",
  "ownStreamRequired",
  "rateLimited",
  "requestTooLarge",
  "tokenRequired",
  "unknownMethod",
]);

/** Is an answer with this error one that counts? */
export function isBadRequest(code: ErrorCode): boolean {
  return BAD.has(code);
}

/** What BadRequests needs of its server. */
export interface BadRequestsServer {
  readonly clock: Clock;
  readonly limits: Pick<Limits, "hit">;
  readonly settings: { readonly limits: { readonly malformedRate: number } };
}

/** Those of one connection. Whatever is read in one piece may leave a debt, which is waited for. */
export class BadRequests {
  readonly #server: BadRequestsServer;
  readonly #connection: { readonly maskedAddress: string; readonly gone: AbortSignal };
  #owed = 0;
  #at: number;

  constructor(
    server: BadRequestsServer,
    connection: { readonly maskedAddress: string; readonly gone: AbortSignal },
  ) {
    this.#server = server;
    this.#connection = connection;
    this.#at = server.clock.monotonic();
  }

  /** One more. */
  count(): void {
    this.#settle();
    this.#owed++;
  }

  /** Must the next bytes wait? */
  get tooMany(): boolean {
    if (this.#owed === 0) return false;
    this.#settle();
    return this.#owed > this.#rate * BURST_S;
  }

  /** Until there are few enough again, or the connection is gone. Counts as a hit of the limit. */
  async wait(): Promise<void> {
    const { clock, limits } = this.#server;
    const { gone, maskedAddress } = this.#connection;
    limits.hit("malformedRate", maskedAddress);
    while (this.tooMany && !gone.aborted) {
      const over = Promise.withResolvers<void>();
      const cancel = clock.after(
        Math.ceil((this.#owed - this.#rate * BURST_S) / this.#rate * 1000),
        () => over.resolve(),
      );
      const stop = () => over.resolve();
      gone.addEventListener("abort", stop, { once: true });
      await over.promise;
      gone.removeEventListener("abort", stop);
      cancel();
    }
  }

  get #rate(): number {
    return this.#server.settings.limits.malformedRate;
  }

  #settle(): void {
    const now = this.#server.clock.monotonic();
    this.#owed = Math.max(0, this.#owed - (now - this.#at) / 1000 * this.#rate);
    this.#at = now;
  }
}
