/**
 * The honest side of an abuse run, a process of its own: one device sends to another a hundred times a second, which
 * gets it by a subscription and acknowledges it. Told "mark" it says how long that took since the last mark, told
 * "rest" it goes on no more and stays connected.
 */
import { randomBytes } from "../../../mod/base/bytes.ts";
import { tell, told } from "./child.ts";
import { resumeDevice, type Target } from "./target.ts";

/** From one message to the next, when the answers come in time. */
const PACE_MS = 10;

/** What a mark is answered with; milliseconds. */
export interface HonestMark {
  readonly trips: number;
  readonly p50: number;
  readonly p99: number;
}

class Pair {
  #times: number[] = [];
  #over = false;

  constructor(readonly trip: () => Promise<void>) {}

  async run(): Promise<void> {
    for (let next = performance.now(); !this.#over; next = Math.max(next + PACE_MS, performance.now())) {
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, next - performance.now())));
      const startedAt = performance.now();
      await this.trip();
      this.#times.push(performance.now() - startedAt);
    }
  }

  mark(): HonestMark {
    const sorted = this.#times.toSorted((a, b) => a - b);
    this.#times = [];
    const at = (part: number) => Math.round((sorted[Math.floor(sorted.length * part)] ?? 0) * 100) / 100;
    return { trips: sorted.length, p50: at(0.5), p99: at(0.99) };
  }

  end(): void {
    this.#over = true;
  }
}

async function openPair(target: Target): Promise<Pair> {
  const alice = (await resumeDevice(target, 0)).link.connection;
  const bob = await resumeDevice(target, 1);
  const pushes = bob.link.connection.subscribe({ after: 0n, creditBytes: 1 << 24 });
  await pushes.next();
  return new Pair(async () => {
    const payload = randomBytes(512);
    const parts = [{ payload, recipients: [bob.deviceId] }];
    const { statuses } = await alice.call("enqueue", { messageId: randomBytes(16), parts });
    if (statuses[0] !== 1) throw new Error(`An honest message was refused: ${statuses[0]}`);
    for (let came = false; !came;) {
      const { value, done } = await pushes.next();
      if (done) throw new Error("The honest subscription ended");
      const last = value.entries.at(-1);
      if (!last) continue;
      came = value.entries.some((entry) => entry.payload.toHex() === payload.toHex());
      await bob.link.connection.call("ack", { through: last.seq });
    }
  });
}

const input = told();
const pair = await openPair((await input.next()).value as Target);
const running = pair.run();
tell("ready");
const marks = (async () => {
  for await (const word of input) {
    if (word === "mark") tell(pair.mark());
    if (word !== "rest") continue;
    pair.end();
    await running;
    tell("resting");
  }
  pair.end();
})();
await Promise.all([running, marks]);
Deno.exit(0);
