/** What is said of a command word that there is none of. */
import { nearestName } from "../config/problems.ts";
import { UsageError } from "./terminal.ts";

/** `names`: the words that there are. `program`: how it was called. */
export function unknownCommand(
  word: string,
  { names, program }: { names: readonly string[]; program: string },
): UsageError {
  const nearest = nearestName(word, names);
  const hint = nearest ? `: did you mean ${nearest}?` : "";
  return new UsageError(`There is no command ${word}${hint} (${program} --help lists them)`);
}
