/** What a message is answered with that must not overtake another one. */
import { QpqError } from "../base/errors.ts";

/** A message behind one that was not accepted: it is to come again, after that. */
export class HeldBackError extends QpqError {
  constructor() {
    super("overloaded", "Cannot enqueue as an earlier message was not accepted");
  }
}
