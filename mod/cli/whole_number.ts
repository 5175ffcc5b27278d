/** Numbers on the command line. */
import type { Flags } from "./admin_command.ts";
import { UsageError } from "./terminal.ts";

/** The whole number above 0 of a flag. Throws UsageError. */
export function wholeNumber(flags: Flags, name: string): number {
  const value = Number(flags[name]);
  if (Number.isInteger(value) && value > 0) return value;
  throw new UsageError(`--${name} must be a whole number above 0: ${flags[name]}`);
}
