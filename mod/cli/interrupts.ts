/**
 * Signals as they were meant. Ctrl-C reaches every process of the terminal's foreground group, and npx and each
 * `deno task` above this program hand theirs on: one press arrives several times within a moment.
 */
import { type Clock, systemClock } from "../base/clock.ts";

/** What comes this soon after the first signal is the same press, also on a busy machine. */
const SAME_PRESS_MS = 1000;

/** A listener for SIGINT and SIGTERM: `first` is called once, `again` for each that was meant as another one. */
export function interrupts(
  on: { first(signal: string): void; again(): void },
  clock: Clock = systemClock,
): (signal: string) => void {
  let firstAt: number | undefined;
  return (signal) => {
    if (firstAt === undefined) {
      firstAt = clock.monotonic();
      on.first(signal);
    } else if (clock.monotonic() - firstAt >= SAME_PRESS_MS) on.again();
  };
}
