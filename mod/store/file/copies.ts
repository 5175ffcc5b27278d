/** What an open store does with what it is given and whom it tells. */
import { copy } from "../../base/bytes.ts";
import { messageOf } from "../../base/errors.ts";
import { logger } from "../../base/log.ts";

const log = logger("store");

/** A copy of plain data that shares no buffer with it. */
export function deepCopy<Data>(data: Data): Data {
  if (data instanceof Uint8Array) return copy(data) as Data;
  if (Array.isArray(data)) return data.map(deepCopy) as Data;
  if (typeof data !== "object" || data === null) return data;
  return Object.fromEntries(Object.entries(data).map(([name, value]) => [name, deepCopy(value)])) as Data;
}

/** One listener's fault is not another's. */
export function tell<Told>(
  listeners: Iterable<(told: readonly Told[]) => void>,
  told: readonly Told[],
): void {
  for (const listener of listeners) {
    try {
      listener(told);
    } catch (error) {
      log.error("a listener of the store failed: {error}", { error: messageOf(error) });
    }
  }
}
