/** THE workload table: what each measures, what it counts, and what it is run with when nobody says otherwise. */
import { prepareDrain } from "./drain.ts";
import { prepareEnqueue } from "./enqueue.ts";
import { prepareFanout } from "./fanout.ts";
import { prepareHandshake } from "./handshake.ts";
import { prepareIdle } from "./idle.ts";
import type { LoadOptions, Prepare } from "./load.ts";
import { prepareLogin } from "./login.ts";
import { preparePingpong } from "./pingpong.ts";
import { prepareReconnect } from "./reconnect.ts";

/** One workload. */
export interface Workload {
  readonly prepare: Prepare;
  /** What it counts, in the plural. */
  readonly unit: string;
  readonly text: string;
  readonly defaults: Partial<LoadOptions>;
  /** It is over when its work is done, however long that takes, and has no warm-up. */
  readonly endsByItself?: boolean;
}

/** What every workload is run with unless its row says otherwise. */
export const LOAD_DEFAULTS: LoadOptions = {
  connections: 8,
  inFlight: 16,
  payloadBytes: 512,
  perSecond: null,
  recipients: 16,
  backlog: 100_000,
  receive: "subscribe",
};

/** All workloads by name. */
export const WORKLOADS = {
  enqueue: {
    prepare: prepareEnqueue,
    unit: "messages",
    text: "durable messages to one recipient each",
    defaults: {},
  },
  pingpong: {
    prepare: preparePingpong,
    unit: "messages",
    text: "from a sender's Enqueue to the arrival at its recipient",
    defaults: { inFlight: 1 },
  },
  fanout: {
    prepare: prepareFanout,
    unit: "messages",
    text: "durable messages to many recipients each",
    defaults: { connections: 4, inFlight: 4, recipients: 100 },
  },
  drain: {
    prepare: prepareDrain,
    unit: "messages",
    text: "fetch and acknowledge a backlog",
    defaults: { inFlight: 1 },
    endsByItself: true,
  },
  login: {
    prepare: prepareLogin,
    unit: "logins",
    text: "connect, Hello and a login with the password (OPAQUE)",
    defaults: { inFlight: 1 },
  },
  handshake: {
    prepare: prepareHandshake,
    unit: "handshakes",
    text: "new QUIC connections, closed at once",
    defaults: { connections: 16, inFlight: 1 },
  },
  reconnect: {
    prepare: prepareReconnect,
    unit: "devices",
    text: "all devices come back at the same moment: connect, Hello, Resume",
    defaults: { connections: 1000, inFlight: 1 },
    endsByItself: true,
  },
  idle: {
    prepare: prepareIdle,
    unit: "pings",
    text: "hold connections with a FetchWait and a Subscribe, and ping one after another",
    defaults: { connections: 1000, inFlight: 1 },
  },
} as const satisfies Record<string, Workload>;

/** Name of a workload. */
export type WorkloadName = keyof typeof WORKLOADS;

/** All names. */
export const WORKLOAD_NAMES = Object.keys(WORKLOADS) as WorkloadName[];

/** A row of the table. */
export function workloadOf(name: WorkloadName): Workload {
  return WORKLOADS[name];
}

/** What a workload is run with: what was chosen, else its own defaults, else those of all. */
export function loadOptions(name: WorkloadName, chosen: Partial<LoadOptions> = {}): LoadOptions {
  return { ...LOAD_DEFAULTS, ...workloadOf(name).defaults, ...chosen };
}
