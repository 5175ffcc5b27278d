/**
 * A process that has a store open, for tests that need another process or want to kill one. Arguments: data folder,
 * key, and what to do: `hold` it, or `write` messages without end. Lines on stdout say what was done: `ready`,
 * and the message id of every message whose enqueue has resolved.
 */
import { hex, randomBytes } from "../../../../mod/base/bytes.ts";
import { type EntryId, newMessageId, randomId } from "../../../../mod/base/ids.ts";
import { openStore } from "../../../../mod/store/open.ts";
import { StoreOpenError } from "../../../../mod/store/store.ts";
import { WIDE_LIMITS } from "../../../contract/store/world.ts";

/** What the writer sends, and from whom to whom. */
interface Ids {
  readonly senderAccount: string;
  readonly senderDevice: string;
  readonly recipients: readonly string[];
}

const PAYLOAD_BYTES = 512;
const WRITERS = 16;

function say(line: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${line}\n`));
}

async function write(store: Awaited<ReturnType<typeof openStore>>, ids: Ids): Promise<void> {
  const sendOne = async () => {
    const now = Date.now();
    const messageId = newMessageId(now);
    const result = await store.enqueue({
      ...ids as never as { senderAccount: never; senderDevice: never },
      ...{ messageId, requestSha256: randomBytes(32), entryId: randomId<EntryId>() },
      // The payload begins with the message id, so that the reader knows which message it has found.
      parts: [{
        payload: Uint8Array.fromHex(messageId + hex(randomBytes(PAYLOAD_BYTES))),
        recipients: ids.recipients as never[],
      }],
      ...{
        expiresAt: now + 1e9,
        commitsTo: [],
        behind: [],
        origin: null,
        remote: [],
        guard: null,
        limits: { ...WIDE_LIMITS, senderShare: 1 },
        now,
      },
    });
    if (result.status !== "accepted") throw new Error(`Refused: ${result.status}`);
    say(messageId);
  };
  await Promise.all(Array.from({ length: WRITERS }, async () => {
    for (;;) await sendOne();
  }));
}

if (import.meta.main) {
  const [dataDir, key, what, ids] = Deno.args;
  try {
    const store = await openStore({ backend: "sqlcipher", dataDir: dataDir!, keys: [key!] });
    say("ready");
    if (what === "write") await write(store, JSON.parse(ids!));
    else await new Promise(() => setInterval(() => {}, 1 << 30));
  } catch (error) {
    if (!(error instanceof StoreOpenError)) throw error;
    say(`${error.problem}: ${error.message}`);
    Deno.exit(3);
  }
}

/** A running store process and the lines it has printed. */
export interface StoreProcess {
  readonly pid: number;
  readonly lines: string[];
  /** Resolves when there are `count` lines, or the process has ended. */
  reached(count: number): Promise<void>;
  /** SIGKILL; resolves when it is gone and everything it printed was read. */
  kill(): Promise<void>;
}

/** Starts this file as a process of its own. */
export function startStoreProcess(dataDir: string, key: string, what: readonly string[]): StoreProcess {
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-A",
      "--quiet",
      "--cached-only",
      import.meta.filename!,
      dataDir,
      key,
      ...what,
    ],
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const lines: string[] = [];
  let waiting: { count: number; resolve: () => void }[] = [];
  let ended = false;
  const settle = () => {
    for (const { count, resolve } of waiting) if (ended || lines.length >= count) resolve();
    waiting = waiting.filter(({ count }) => !ended && lines.length < count);
  };
  const reading = (async () => {
    let rest = "";
    for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
      const parts = (rest + text).split("\n");
      rest = parts.pop()!;
      lines.push(...parts);
      settle();
    }
    ended = true;
    settle();
  })();
  return {
    pid: child.pid,
    lines,
    reached: (count) =>
      new Promise((resolve) => {
        waiting.push({ count, resolve });
        settle();
      }),
    async kill() {
      try {
        child.kill("SIGKILL");
      } catch {
        // It has ended by itself.
      }
      await child.status;
      await reading;
    },
  };
}
