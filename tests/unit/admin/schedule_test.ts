import assert from "node:assert/strict";
import { dueAt, intervalOf, type ScheduleState } from "../../../mod/admin/schedule.ts";
import { parseSchedule } from "../../../mod/config/schedule.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const MIDNIGHT = Date.UTC(2026, 6, 15);

function due(schedule: string, state: Partial<ScheduleState>): number | null {
  const parsed = parseSchedule(schedule);
  assert.notEqual(parsed, undefined);
  return dueAt({ schedule: parsed!, lastAt: null, failed: null, jitterMs: 0, ...state });
}

Deno.test("parseSchedule() reads off, intervals and times of day, and nothing else", () => {
  assert.equal(parseSchedule("off"), null);
  assert.deepEqual(parseSchedule("6h"), { kind: "every", everyMs: 6 * HOUR });
  assert.deepEqual(parseSchedule("03:30"), { kind: "daily", minute: 210 });
  for (const text of ["", "on", "9m", "31d", "24:00", "3:30", "03:60", "6 h", "0h", "-1d", "1.5h"]) {
    assert.equal(parseSchedule(text), undefined, text);
  }
});

Deno.test("dueAt() is never without a schedule, and at once without a backup", () => {
  assert.equal(due("off", { lastAt: 0 }), null);
  assert.equal(due("6h", {}), 0);
  assert.equal(due("03:30", {}), 0);
});

Deno.test("dueAt() is an interval after the last backup, with the jitter", () => {
  assert.equal(due("6h", { lastAt: MIDNIGHT, jitterMs: 5 * MINUTE }), MIDNIGHT + 6 * HOUR + 5 * MINUTE);
});

Deno.test("dueAt() is the first such time of day after the last backup: what was missed is in the past", () => {
  const at = MIDNIGHT + 3.5 * HOUR;
  assert.equal(due("03:30", { lastAt: at - 1 }), at);
  assert.equal(due("03:30", { lastAt: at }), at + DAY);
  assert.equal(due("03:30", { lastAt: at + 4 * MINUTE }), at + DAY);
  assert.equal(due("03:30", { lastAt: MIDNIGHT - 3 * DAY }), at - 3 * DAY);
});

Deno.test("dueAt() tries again after a failure, later each time, at most an hour later", () => {
  const at = MIDNIGHT;
  const again = (schedule: string, times: number) =>
    due(schedule, { lastAt: at - 2 * DAY, failed: { at, times } })! - at;
  assert.deepEqual([1, 2, 3, 7, 50].map((times) => again("6h", times) / MINUTE), [1, 2, 4, 60, 60]);
  assert.equal(again("20m", 50), 5 * MINUTE);
});

Deno.test("intervalOf() is what alerts go by", () => {
  assert.deepEqual(["off", "6h", "03:30"].map((text) => intervalOf(parseSchedule(text)!)), [
    0,
    6 * HOUR,
    DAY,
  ]);
});
