/** Bugs that servers could have in what they relay, planted one at a time. */
import { type MessageId, randomId } from "../../mod/base/ids.ts";
import type { Store } from "../../mod/store/store.ts";
import { patched } from "./planted_bugs.ts";

/** One bug, and where it sits. */
export interface RelayBug {
  /** What a server with this bug does. */
  readonly name: string;
  /** What the simulation says when it finds it. */
  readonly found: RegExp;
  readonly inSender?: (store: Store) => Store;
  readonly inReceiver?: (store: Store) => Store;
  /** It keeps nothing of what it put off when a Relay is answered. */
  readonly forgetsOrder?: boolean;
}

/** All of them. */
export const RELAY_BUGS: readonly RelayBug[] = [
  {
    name: "takes what is behind a message that it cannot take",
    found: /after number/,
    inReceiver: (store) =>
      patched(store, { enqueue: (message) => store.enqueue({ ...message, behind: [] }) }),
  },
  {
    name: "takes the next Relay after one that it put off in part",
    found: /after number/,
    forgetsOrder: true,
  },
  {
    name: "forgets what other servers have brought",
    found: /twice|after number/,
    inReceiver: (store) =>
      patched(store, {
        enqueue: (message) => store.enqueue({ ...message, messageId: randomId<MessageId>(), behind: [] }),
      }),
  },
  {
    name: "takes messages out of the outbox as it reads them",
    found: /neither came/,
    inSender: (store) =>
      patched(store, {
        outboxAfter: async (range) => {
          const entries = await store.outboxAfter(range);
          const settled = entries.map(({ id }) => ({ id, failures: [] }));
          if (settled.length > 0) await store.settleOutbox({ domain: range.domain, settled, now: 0 });
          return entries;
        },
      }),
  },
  {
    name: "tells senders of no failure",
    found: /neither came/,
    inSender: (store) =>
      patched(store, {
        settleOutbox: ({ settled, ...rest }) =>
          store.settleOutbox({ ...rest, settled: settled.map(({ id }) => ({ id, failures: [] })) }),
      }),
  },
];
