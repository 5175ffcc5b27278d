/** Frames that a live server is attacked with. */
import { encodeFrame } from "../../mod/protocol/frame.ts";
import { METHOD_ROWS, randomMessage } from "./messages.ts";
import { mutate, type Random } from "./random.ts";
import { randomFrames } from "./wire_targets.ts";

/** Logout, DeleteAccount, and what waits a minute by design. */
const ENDS: ReadonlySet<number> = new Set([15, 18, 42]);
const METHODS = METHOD_ROWS.filter(({ number }) => !ENDS.has(number));

/** A frame that is wrong in some way; one in 400 is no frame, which ends the connection. */
export function malformedFrame(random: Random): Uint8Array {
  const method = random.pick(METHODS);
  const body = randomMessage(random, method.request);
  const id = 1 + random.below(0xffff);
  switch (random.below(400)) {
    case 0:
      return mutate(random, randomFrames(random, METHODS), random.bytes(9));
    case 1:
      return encodeFrame(id, random.below(65_536), body);
    default:
      return encodeFrame(id, method.number, mutate(random, body, random.bytes(20)));
  }
}
