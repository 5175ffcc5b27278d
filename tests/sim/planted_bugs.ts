/** Bugs that a server could have, planted one at a time: the simulation is worth something as long as it finds each. */
import type { AccessTokens } from "../../mod/auth/tokens.ts";
import { type MessageId, randomId } from "../../mod/base/ids.ts";
import type { Store } from "../../mod/store/store.ts";
import type { DiskLies } from "./sim_disk.ts";

/** One bug, and where it sits. */
export interface PlantedBug {
  /** What a server with this bug does. */
  readonly name: string;
  /** What the simulation says when it finds it. */
  readonly found: RegExp;
  readonly inStore?: (store: Store) => Store;
  readonly inTokens?: (tokens: AccessTokens) => void;
  readonly inDisk?: DiskLies;
}

/** `store` with some of its verbs replaced. */
export function patched(store: Store, patch: Partial<Store>): Store {
  return new Proxy(store, {
    get(target, name) {
      const value = Reflect.get(name in patch ? patch : target, name, name in patch ? patch : target);
      return typeof value === "function" ? value.bind(name in patch ? patch : target) : value;
    },
  });
}

/** All of them. */
export const PLANTED_BUGS: readonly PlantedBug[] = [
  {
    name: "answers before its answer is on disk",
    found: /damaged|did not come|cannot/,
    inDisk: { sync: true },
  },
  {
    name: "renames its files without syncing the folder",
    found: /damaged|did not come|cannot|resumed after its end/,
    inDisk: { syncFolder: true },
  },
  {
    name: "forgets message ids",
    found: /accepted twice|is there twice|under the id of/,
    inStore: (store) =>
      patched(store, {
        enqueue: (message) => store.enqueue({ ...message, messageId: randomId<MessageId>() }),
      }),
  },
  {
    name: "does not look at commit guards",
    found: /has two commits|a commit .* was accepted/,
    inStore: (store) =>
      patched(store, { enqueue: (message) => store.enqueue({ ...message, guard: null, commitsTo: [] }) }),
  },
  {
    name: "gives two who ask at once the same KeyPackages",
    found: /given out twice/,
    inStore: (store) => {
      const claims = new Map<string, ReturnType<Store["claimKeyPackages"]>>();
      return patched(store, {
        claimKeyPackages: (claim) => {
          const present = claims.get(claim.accountId);
          if (present) return present;
          const claimed = store.claimKeyPackages(claim).finally(() => claims.delete(claim.accountId));
          claims.set(claim.accountId, claimed);
          return claimed;
        },
      });
    },
  },
  {
    name: "takes an Ack for the next entry too",
    found: /did not come|is gone without an Ack/,
    inStore: (store) =>
      patched(store, {
        ack: async (deviceId, through) => {
          const { nextSeq } = await store.cursor(deviceId) ?? { nextSeq: 1 };
          return await store.ack(deviceId, through + 1 < nextSeq ? through + 1 : through);
        },
      }),
  },
  {
    name: "skips an entry when a Fetch does not get all",
    found: /did not come|came after/,
    inStore: (store) =>
      patched(store, {
        fetchAfter: async (fetch) => {
          const found = await store.fetchAfter(fetch);
          return found?.more ? { ...found, entries: found.entries.slice(1) } : found;
        },
      }),
  },
  {
    name: "answers a Fetch with what another device got",
    found: /was not for it|which it has seen/,
    inStore: (store) => {
      const found = new Map<number, Awaited<ReturnType<Store["fetchAfter"]>>>();
      return patched(store, {
        fetchAfter: async (fetch) => {
          const known = found.get(fetch.after);
          const fresh = await store.fetchAfter(fetch);
          found.set(fetch.after, fresh);
          return known && known.entries.length > 0 && fresh?.entries.length === 0
            ? { ...known, cursor: fresh.cursor }
            : fresh;
        },
      });
    },
  },
  {
    name: "expires messages too early",
    found: /did not come|is gone without an Ack/,
    inStore: (store) =>
      patched(store, { expireEntries: (now, limit) => store.expireEntries(now + 10 * 60_000, limit) }),
  },
  {
    name: "wakes only the first of several recipients",
    found: /although it waited/,
    inStore: (store) =>
      patched(store, {
        onEnqueued: (listener) => store.onEnqueued((devices, fresh) => listener(devices.slice(0, 1), fresh)),
      }),
  },
  {
    name: "lets queues grow beyond their bound",
    found: /messages are in the queue/,
    inStore: (store) =>
      patched(store, {
        enqueue: (message) =>
          store.enqueue({ ...message, limits: { ...message.limits, queueDepthMax: 1_000 } }),
      }),
  },
  {
    name: "ends no session at Logout",
    found: /resumed after its end/,
    inStore: (store) => patched(store, { endSession: () => Promise.resolve() }),
  },
  {
    name: "ends sessions that are in use",
    found: /cannot be resumed although nothing ended it/,
    inStore: (store) =>
      patched(store, {
        findSession: async (sessionId) => {
          const session = await store.findSession(sessionId);
          return session && session.createdAt % 5 === 0 ? { ...session, ended: true } : session;
        },
      }),
  },
  {
    name: "accepts a replaced access token for ever",
    found: /wrong access token/,
    inTokens: (tokens) => {
      const replace = tokens.replace.bind(tokens);
      tokens.replace = (accepted) => replace(accepted.map(({ token }) => ({ token, until: null })));
    },
  },
];
