/** What can be fuzzed: something that takes bytes from outside and must refuse them in the way it says, and no other. */
import type { Random } from "./random.ts";

/** One reader of bytes. */
export interface Target {
  readonly name: string;
  /** An input that is right, or nearly: its structure is what random bytes would not find. */
  generate(random: Random): Uint8Array;
  /** Reads it. Throws, or rejects, for anything but the refusals that are documented: that is a find. */
  run(input: Uint8Array): void | Promise<void>;
  /** Ends what it holds. */
  close?(): Promise<void>;
}

/** Passes when `work` returns or throws an error whose name is among `expected`. Returns what it returned, or null. */
export function refusing<Value>(expected: readonly string[], work: () => Value): Value | null {
  try {
    return work();
  } catch (error) {
    if (error instanceof Error && expected.includes(error.name)) return null;
    throw error;
  }
}

/** Like {@link refusing}, for promises. */
export async function refusingLater<Value>(
  expected: readonly string[],
  work: () => Promise<Value>,
): Promise<Value | null> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof Error && expected.includes(error.name)) return null;
    throw error;
  }
}
