/** When something is done again and again, as `backup.schedule` is written. */

/** Every so many milliseconds, or each day at a minute of the UTC day; null: never. */
export type Schedule =
  | { readonly kind: "every"; readonly everyMs: number }
  | { readonly kind: "daily"; readonly minute: number }
  | null;

const UNITS_MS: Readonly<Record<string, number>> = { m: 60_000, h: 3_600_000, d: 86_400_000 };
const EVERY_MS_MIN = 600_000;
const EVERY_MS_MAX = 30 * 86_400_000;

/** Reads `off`, `6h` or `03:30`; undefined: it is none of these. */
export function parseSchedule(text: string): Schedule | undefined {
  if (text === "off") return null;
  const time = /^([01]\d|2[0-3]):([0-5]\d)$/.exec(text);
  if (time) return { kind: "daily", minute: Number(time[1]) * 60 + Number(time[2]) };
  const every = /^(\d{1,6})([mhd])$/.exec(text);
  const everyMs = every ? Number(every[1]) * UNITS_MS[every[2]!]! : 0;
  return everyMs >= EVERY_MS_MIN && everyMs <= EVERY_MS_MAX ? { kind: "every", everyMs } : undefined;
}
