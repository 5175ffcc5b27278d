/** Says that nobody has answered yet, while a first connection is still being tried. */
import type { NetAddress } from "../base/address.ts";
import { type Clock, systemClock } from "../base/clock.ts";
import { connect as connectByQuic } from "../transport/deno_quic.ts";
import type { Connection, ConnectOptions } from "../transport/transport.ts";

/** A server that is there has answered by then, also one that is far away or whose first packet was lost. */
export const SILENCE_MS = 4_000;

/** As it is given to a client. */
export type Connect = (options: ConnectOptions) => Promise<Connection>;

/**
 * `connect`, which calls `onSilence` once when a handshake has gone without an answer for {@link SILENCE_MS}, and goes
 * on trying. Not after a connection was made: who was connected hears of its loss in other ways.
 */
export function tellingOfSilence(
  options: { onSilence: (server: NetAddress) => void; clock?: Clock; connect?: Connect },
): Connect {
  const { onSilence, clock = systemClock, connect = connectByQuic } = options;
  let isOver = false;
  const tell = (server: NetAddress) => {
    if (!isOver) onSilence(server);
    isOver = true;
  };
  return async (to) => {
    const cancel = clock.after(SILENCE_MS, () => tell(to));
    try {
      const connection = await connect(to);
      isOver = true;
      return connection;
    } finally {
      cancel();
    }
  };
}
