/** What `deno task bench` runs: workloads as they are typed, and the limits that each is held against. */

/** A script of this folder and its words; prints `{"perSecond": …}`. */
export interface LimitRun {
  /** What sets it. */
  readonly by: "disk" | "network" | "OPAQUE";
  readonly script: string;
  readonly words: readonly string[];
}

/** One workload. */
export interface WorkloadRun {
  /** Name in the table and in the history. */
  readonly name: string;
  /** Behind `bench`. */
  readonly words: readonly string[];
  /** The lowest of them is the limit. */
  readonly limits: readonly LimitRun[];
  /** Also a part of `--quick`. */
  readonly quick: boolean;
}

const disk = (kind: string, batch: number, ...more: string[]): LimitRun => ({
  by: "disk",
  script: "group_commit.ts",
  words: [kind, "--batch", `${batch}`, ...more],
});

const network = (kind: string, connections: number, inFlight: number): LimitRun => ({
  by: "network",
  script: "echo.ts",
  words: [kind, "--connections", `${connections}`, "--in-flight", `${inFlight}`],
});

/** The server puts no more messages into one transaction. */
const BATCH_MAX = 512;

/** Enqueue with all its requests in one transaction at best. */
function enqueue(connections: number, inFlight: number, options: { quick: boolean }): WorkloadRun {
  return {
    name: `enqueue ${connections} x ${inFlight}`,
    words: ["enqueue", "--connections", `${connections}`, "--in-flight", `${inFlight}`],
    limits: [
      disk("enqueue", Math.min(BATCH_MAX, connections * inFlight)),
      network("frames", connections, inFlight),
    ],
    quick: options.quick,
  };
}

/** All of them, in this order. */
export const RUNS: readonly WorkloadRun[] = [
  enqueue(1, 1, { quick: false }),
  enqueue(1, 256, { quick: true }),
  enqueue(16, 1, { quick: false }),
  enqueue(256, 1, { quick: false }),
  enqueue(50, 32, { quick: false }),
  {
    name: "pingpong 1 x 1",
    words: ["pingpong", "--connections", "1"],
    limits: [disk("enqueue", 1), network("frames", 1, 1)],
    quick: true,
  },
  {
    name: "pingpong 50 x 8",
    words: ["pingpong", "--connections", "50", "--in-flight", "8"],
    limits: [disk("enqueue", 400), network("frames", 50, 8)],
    quick: false,
  },
  {
    name: "fanout 4 x 4 to 100",
    words: ["fanout", "--connections", "4", "--in-flight", "4", "--recipients", "100"],
    limits: [disk("fanout", 16, "--recipients", "100"), network("frames", 4, 4)],
    quick: true,
  },
  {
    name: "drain 8",
    words: ["drain", "--connections", "8"],
    limits: [disk("drain", 8)],
    quick: true,
  },
  {
    name: "login 8",
    words: ["login", "--connections", "8"],
    limits: [{ by: "OPAQUE", script: "opaque.ts", words: [] }],
    quick: true,
  },
  {
    name: "handshake 16",
    words: ["handshake", "--connections", "16"],
    limits: [network("handshakes", 16, 1)],
    quick: true,
  },
  {
    name: "reconnect 1000",
    words: ["reconnect", "--connections", "1000"],
    limits: [network("handshakes", 64, 1)],
    quick: false,
  },
  {
    name: "idle 1000",
    words: ["idle", "--connections", "1000"],
    limits: [],
    quick: false,
  },
  {
    name: "pingpong with logins",
    words: ["mixed", "--mix", "pingpong,login:8", "--rate", "500"],
    limits: [],
    quick: false,
  },
];
