/**
 * A process that changes a store's key, copies and checks it again and again while it writes, to be killed at any
 * moment. Arguments: backend, data folder, folder for copies, the two keys, and the sending and receiving person as
 * JSON. Lines on stdout: `sent N` for every message that was acknowledged, `step` at each twentieth of a piece of work.
 */
import { utf8 } from "../../mod/base/bytes.ts";
import { type EntryId, type MessageId, randomId } from "../../mod/base/ids.ts";
import { openStore, type StoreBackend } from "../../mod/store/open.ts";
import type { Store } from "../../mod/store/store.ts";
import { GENEROUS } from "../contract/admin/backend.ts";
import type { Person } from "../contract/store/world.ts";

const PAYLOAD_BYTES = 2000;

function say(line: string): void {
  Deno.stdout.writeSync(utf8(`${line}\n`));
}

async function send(
  store: Store,
  { sender, recipient }: { sender: Person; recipient: Person },
): Promise<never> {
  const { nextSeq } = (await store.cursor(recipient.deviceId))!;
  for (let number = nextSeq;; number++) {
    const now = Date.now();
    const payload = new Uint8Array(PAYLOAD_BYTES);
    payload.set(utf8(`${number} `));
    const result = await store.enqueue({
      ...{ senderAccount: sender.accountId, senderDevice: sender.deviceId, messageId: randomId<MessageId>() },
      ...{ requestSha256: new Uint8Array(32), entryId: randomId<EntryId>(), limits: GENEROUS, now },
      ...{ parts: [{ payload, recipients: [recipient.deviceId] }], expiresAt: now + 1e12 },
      ...{ commitsTo: [], behind: [], guard: null, origin: null, remote: [] },
    });
    if (result.status !== "accepted") throw new Error(`Refused: ${result.status}`);
    say(`sent ${number}`);
  }
}

if (import.meta.main) {
  const [backend, dataDir, copies, oneKey, otherKey, people] = Deno.args as [StoreBackend, ...string[]];
  const keys = [oneKey!, otherKey!];
  const store = await openStore({ backend, dataDir: dataDir!, keys, mustExist: true });
  say("open");
  send(store, JSON.parse(people!));
  let shown = 0;
  const onProgress = (share: number) => {
    const twentieth = Math.floor(share * 20);
    if (twentieth !== shown) say("step");
    shown = twentieth;
  };
  for (;;) {
    for (const key of keys.toReversed()) {
      const { oldPath } = await store.rekey(key, onProgress);
      say("step");
      await Deno.remove(oldPath, { recursive: true });
    }
    await store.snapshotTo(await Deno.makeTempDir({ dir: copies! }), onProgress);
    const problems = await store.checkIntegrity(onProgress);
    if (problems.length > 0) throw new Error(problems.join("\n"));
  }
}
