/** What a workload is: prepared once, then run by a meter, with what all workloads of one bench share. */
import type { AckedLog } from "./acked_log.ts";
import type { BenchAccounts } from "./bench_accounts.ts";
import type { BenchServer } from "./bench_server.ts";
import type { Meter } from "./meter.ts";

/** What the workloads of one bench share. */
export interface BenchContext {
  readonly server: BenchServer;
  readonly accounts: BenchAccounts;
  /** What the ids of its messages begin with. */
  readonly run: Uint8Array;
  /** Takes what was acknowledged; null when nobody asked. */
  readonly ackedLog: AckedLog | null;
  /** Number of the next message. */
  nextNumber(): number;
}

/** What a person chooses. */
export interface LoadOptions {
  readonly connections: number;
  /** Requests of each connection. */
  readonly inFlight: number;
  readonly payloadBytes: number;
  /** Operations of all connections in a second, by a schedule; null: as many as there can be. */
  readonly perSecond: number | null;
  /** Queues that messages go to. */
  readonly recipients: number;
  /** Messages that wait before `drain` begins. */
  readonly backlog: number;
  /** How `pingpong` receives. */
  readonly receive: "subscribe" | "fetchWait";
}

/** A prepared workload. */
export interface Load extends AsyncDisposable {
  /** Runs until the meter stops and all that was begun has ended. */
  run(meter: Meter): Promise<void>;
  /** Further figures of what was measured, by their names. */
  figures?(meter: Meter): Readonly<Record<string, number>>;
}

/** Makes accounts and connections, and whatever else is not measured. */
export type Prepare = (context: BenchContext, options: LoadOptions) => Promise<Load>;
