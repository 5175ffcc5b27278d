/** User names: one normal form, so that a name is unique and means the same to client, server and OPAQUE. */
import { QpqError } from "./errors.ts";

/** Most characters of a user name. */
export const USER_NAME_CHARACTERS_MAX = 64;

const PATTERN = /^[a-z0-9][a-z0-9._-]{0,63}$/;

/** The normal form (ASCII, lower case) of what somebody typed; undefined when it is no user name. */
export function tryNormaliseUserName(typed: string): string | undefined {
  if (typed.length > USER_NAME_CHARACTERS_MAX) return undefined;
  // Only A–Z are folded: toLowerCase() would let other letters (the Kelvin sign) become ASCII ones.
  const folded = typed.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
  return PATTERN.test(folded) ? folded : undefined;
}

/** Like {@link tryNormaliseUserName}, but throws `userNameInvalid`. */
export function normaliseUserName(typed: string): string {
  const name = tryNormaliseUserName(typed);
  if (name === undefined) {
    throw new QpqError("userNameInvalid", `Cannot use a user name of ${typed.length} characters: not a name`);
  }
  return name;
}
