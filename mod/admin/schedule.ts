/** When the next scheduled backup is due, from nothing but times: what was missed is due at once. */
import type { Schedule } from "../config/schedule.ts";

const DAY_MS = 86_400_000;
const MINUTE_MS = 60_000;

/** What decides when a backup is due. Unix ms. */
export interface ScheduleState {
  readonly schedule: Schedule;
  /** When the newest backup was made; null when there is none. */
  readonly lastAt: number | null;
  /** The end of the last attempt that failed, and how many failed one after another; null: the last one did not. */
  readonly failed: { readonly at: number; readonly times: number } | null;
  /** Chosen once for each backup: so much later than it would be due. */
  readonly jitterMs: number;
}

/** How often the schedule makes a backup; 0: never. */
export function intervalOf(schedule: Schedule): number {
  if (schedule === null) return 0;
  return schedule.kind === "every" ? schedule.everyMs : DAY_MS;
}

/** When the next one is due, which may be in the past; null: never. */
export function dueAt({ schedule, lastAt, failed, jitterMs }: ScheduleState): number | null {
  if (schedule === null) return null;
  const regular = lastAt === null ? 0 : nextAfter(schedule, lastAt) + jitterMs;
  return failed === null ? regular : Math.max(regular, failed.at + retryAfter(schedule, failed.times));
}

/** The first regular time after `at`. */
function nextAfter(schedule: NonNullable<Schedule>, at: number): number {
  if (schedule.kind === "every") return at + schedule.everyMs;
  const today = Math.floor(at / DAY_MS) * DAY_MS + schedule.minute * MINUTE_MS;
  return today > at ? today : today + DAY_MS;
}

/** A minute, two, four and so on; at most an hour, and never longer than a quarter of the interval. */
function retryAfter(schedule: NonNullable<Schedule>, times: number): number {
  return Math.min(MINUTE_MS * 2 ** Math.min(times - 1, 10), 60 * MINUTE_MS, intervalOf(schedule) / 4);
}
