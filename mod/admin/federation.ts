/** `federation …`: what waits for other servers, who they are, trying again, and blocking. */
import { tryNormaliseDomain } from "../base/user_address.ts";
import { tryParsePeerEntry } from "../base/peer_entry.ts";
import { AdminError, type JsonObject, type Operation } from "./operations.ts";
import type { AdminContext } from "./operations.ts";
import { InputReader } from "./operations_input.ts";
import type { LiveFederation } from "./operations_live.ts";

/** What waits for each domain, and what is done about it. */
export const federationStatus: Operation = {
  name: "federation status",
  whenStopped: "reads",
  audited: false,
  async run(context, input) {
    new InputReader(input).end();
    if (context.server) {
      if (!context.server.federation) return { enabled: false };
      return await context.server.federation.status();
    }
    const { domain, mode, engine } = context.settings.federation;
    if (domain === null) return { enabled: false };
    const store = await context.store();
    const waiting = (await store.outboxes()).map((sums): JsonObject => ({ ...sums }));
    return { enabled: true, domain, mode, engine, blocked: await store.blockedPeers(), outboxes: waiting };
  },
};

/** The servers that messages are exchanged with, and the blocked ones. */
export const federationPeers: Operation = {
  name: "federation peers",
  whenStopped: "reads",
  audited: false,
  async run(context, input) {
    new InputReader(input).end();
    const blocked = await (await context.store()).blockedPeers();
    if (context.server?.federation) return { peers: await context.server.federation.peers() };
    const listed = (context.settings.federation.peers ?? []).flatMap((text) => {
      const entry = tryParsePeerEntry(text);
      return entry ? [entry] : [];
    });
    const domains = [...new Set([...listed.map((entry) => entry.domain), ...blocked])];
    const peers = domains.map((domain): JsonObject => {
      const address = listed.find((entry) => entry.domain === domain)?.address;
      return {
        domain,
        listed: listed.some((entry) => entry.domain === domain),
        blocked: blocked.includes(domain),
        address: address ? `${address.hostname}:${address.port}` : null,
      };
    });
    return { peers };
  },
};

/** Tries at once what waits for its next attempt. */
export const federationRetry: Operation = {
  name: "federation retry",
  whenStopped: "refused",
  audited: true,
  async run(context, input) {
    const read = new InputReader(input);
    const domain = domainOf(read.text("domain"));
    const dryRun = read.flag("dryRun");
    read.end();
    const federation = liveOf(context);
    const retried = [...await federation.retry(domain, dryRun ? "dryRun" : "now")];
    if (domain !== null && retried.length === 0) await refuseUnknown(federation, domain);
    return { dryRun, retried };
  },
};

/** Nothing more is exchanged with a domain. With `drop` what waits for it is given up, and its senders are told. */
export const federationBlock: Operation = {
  name: "federation block",
  whenStopped: "changes",
  audited: true,
  async run(context, input) {
    const read = new InputReader(input);
    const domain = requiredDomain(read);
    const drop = read.flag("drop");
    const dryRun = read.flag("dryRun");
    read.end();
    if (domain === context.settings.federation.domain) {
      throw new AdminError(`${domain} is this server's own domain: name another server's`);
    }
    const store = await context.store();
    if (drop && !context.server?.federation) {
      throw new AdminError(
        `Only a running server that federates can give up what waits for ${domain}: start it, or block without --drop`,
      );
    }
    const waiting = (await store.outboxes()).find((sums) => sums.domain === domain)?.depth ?? 0;
    if (dryRun) return { domain, waiting, dropped: drop ? waiting : 0, dryRun };
    await store.setPeerBlocked(domain, true, context.clock.now());
    context.server?.federation?.setBlocked(domain, "blocked");
    await context.step(`blocked ${domain}`);
    const dropped = drop ? await context.server!.federation!.drop(domain) : 0;
    return { domain, waiting, dropped, dryRun };
  },
};

/** Undoes a block: what still waits is sent. */
export const federationUnblock: Operation = {
  name: "federation unblock",
  whenStopped: "changes",
  audited: true,
  async run(context, input) {
    const read = new InputReader(input);
    const domain = requiredDomain(read);
    const dryRun = read.flag("dryRun");
    read.end();
    const store = await context.store();
    if (!(await store.blockedPeers()).includes(domain)) {
      throw new AdminError(`${domain} is not blocked: qpq-server federation peers shows who is`);
    }
    const waiting = (await store.outboxes()).find((sums) => sums.domain === domain)?.depth ?? 0;
    if (dryRun) return { domain, waiting, dryRun };
    await store.setPeerBlocked(domain, false, context.clock.now());
    context.server?.federation?.setBlocked(domain, "unblocked");
    await context.step(`unblocked ${domain}`);
    return { domain, waiting, dryRun };
  },
};

function liveOf({ server }: AdminContext): LiveFederation {
  if (server?.federation) return server.federation;
  throw new AdminError("This server does not federate: set federation.domain and restart it");
}

/** A domain for which nothing waits: a typing error, unless it is a peer. */
async function refuseUnknown(federation: LiveFederation, domain: string): Promise<void> {
  const known = await federation.peers();
  if (known.some((peer) => peer["domain"] === domain)) return;
  throw new AdminError(`${domain} is no peer, and nothing waits for it: see qpq-server federation peers`);
}

function requiredDomain(read: InputReader): string {
  return domainOf(read.requiredText("domain"))!;
}

function domainOf(typed: string | null): string | null {
  if (typed === null) return null;
  const domain = tryNormaliseDomain(typed.trim());
  if (domain === undefined) {
    throw new AdminError(`Not a domain: ${typed.slice(0, 80)}. Write it like example.org`);
  }
  return domain;
}
