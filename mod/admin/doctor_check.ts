/** One check of `doctor`: what was looked at, what was found, and what to do about it. */
import type { Settings } from "../config/options.ts";
import { messageOf } from "../base/errors.ts";
import type { AdminContext, JsonObject, Progress } from "./operations.ts";

/** `fail`: something is broken or will be soon; `warn`: it works, and should be better. */
export type CheckStatus = "ok" | "warn" | "fail";

/** One row of doctor's table. */
export interface DoctorCheck {
  /** Stable, for programs. */
  readonly name: string;
  readonly status: CheckStatus;
  /** What was found, in words, with its figure. */
  readonly found: string;
  /** What to do; only when not ok. */
  readonly remedy?: string;
}

/** What checks look at. */
export interface DoctorContext {
  readonly admin: AdminContext;
  readonly settings: Settings;
  /** What is wrong with the configuration as its operator's shell sees it. */
  readonly configuration: { readonly problems: readonly string[]; readonly warnings: readonly string[] };
  /** Leaves out what reads the whole database. */
  readonly quick: boolean;
  readonly progress: Progress;
}

/** A group of checks. */
export type DoctorGroup = (context: DoctorContext) => Promise<readonly DoctorCheck[]>;

/** All is well. */
export function ok(name: string, found: string): DoctorCheck {
  return { name, status: "ok", found };
}

/** It works, and should be better. */
export function warn(name: string, found: string, remedy: string): DoctorCheck {
  return { name, status: "warn", found, remedy };
}

/** It is broken, or will be soon. */
export function fail(name: string, found: string, remedy: string): DoctorCheck {
  return { name, status: "fail", found, remedy };
}

/** Runs a group; when it breaks that is a finding too, and the others still run. */
export async function runGroup(
  name: string,
  group: DoctorGroup,
  context: DoctorContext,
): Promise<readonly DoctorCheck[]> {
  try {
    return await group(context);
  } catch (error) {
    return [
      fail(
        name,
        `could not be checked: ${messageOf(error)}`,
        "Read the message; run doctor as the server's user or as root",
      ),
    ];
  }
}

/** A check as JSON. */
export function checkJson({ name, status, found, remedy }: DoctorCheck): JsonObject {
  return { name, status, found, ...(remedy === undefined ? {} : { remedy }) };
}

/** `12.3 GiB`. */
export function showBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const unit = bytes < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(bytes) / 10));
  const size = bytes / 1024 ** unit;
  return `${unit === 0 ? size : size.toFixed(1)} ${units[unit]}`;
}

/** `3 days`, `5 hours`, `20 minutes`. */
export function showAge(ms: number): string {
  const [count, unit] = ms >= 2 * 86_400_000
    ? [ms / 86_400_000, "day"]
    : ms >= 2 * 3_600_000
    ? [ms / 3_600_000, "hour"]
    : [ms / 60_000, "minute"];
  const whole = Math.floor(count);
  return `${whole} ${unit}${whole === 1 ? "" : "s"}`;
}
