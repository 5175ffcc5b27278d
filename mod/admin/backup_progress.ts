/** Progress of work that has several parts. */
import type { Progress } from "./control.ts";

/** Tells rising shares of the whole, and none twice that nobody would see the difference of. */
export class Share {
  readonly #tell: Progress;
  #told = -1;

  constructor(tell: Progress) {
    this.#tell = tell;
  }

  /** Progress of the part between two shares of the whole. */
  part(from: number, to: number): Progress {
    return (share) => {
      const whole = from + (to - from) * Math.min(1, Math.max(0, share));
      if (whole - this.#told < 0.005) return;
      this.#told = whole;
      this.#tell(whole);
    };
  }
}
