/**
 * The calculator: from users, devices and messages to memory, processor and disk, by the figures of measured.json.
 *   deno task sizing --users 500 --devices 2 --messages 100 --recipients 8 --size 1500
 * It answers for one server process; margins are named in the answer, not hidden in it.
 */
import type { StoreBackend } from "../../mod/store/open.ts";
import { type Figures, readFigures } from "./figures.ts";

/** What a server has to carry. */
export interface Demand {
  readonly users: number;
  /** Devices of each. */
  readonly devices: number;
  /** Share of devices that are connected at the busiest time, 0 to 1. */
  readonly online: number;
  /** Messages that a user sends in a day. */
  readonly messages: number;
  /** Devices that a message goes to. */
  readonly recipients: number;
  /** Bytes of a message as it is sent. */
  readonly size: number;
  /** How long a message waits for a device that is not connected, in days. */
  readonly waitingDays: number;
  /** The busiest second against the average one. */
  readonly peak: number;
  /** MiB of files that a user sends in a day, and how many days a file stays. */
  readonly filesMib: number;
  readonly fileDays: number;
  /** Full backups that are kept on the same disk. */
  readonly backups: number;
  readonly backend: StoreBackend;
}

/** A demand when nobody says. */
export const DEFAULT_DEMAND: Demand = {
  users: 100,
  devices: 2,
  online: 0.5,
  messages: 100,
  recipients: 8,
  size: 1500,
  waitingDays: 2,
  peak: 10,
  filesMib: 2,
  fileDays: 37,
  backups: 7,
  backend: "sqlcipher",
};

/** What it takes. */
export interface Sizing {
  readonly connections: number;
  readonly memoryBytes: number;
  readonly messagesPerSecond: { readonly average: number; readonly peak: number };
  /** Cores in use at the peak: of all threads, and of the JavaScript thread, which cannot have more than one. */
  readonly cores: { readonly all: number; readonly main: number };
  readonly entriesWaiting: number;
  readonly disk: {
    readonly storeBytes: number;
    readonly blobBytes: number;
    readonly backupBytes: number;
    /** For a db-key rotation or a conversion: another copy of the store. */
    readonly spareBytes: number;
    readonly allBytes: number;
  };
  /** Everybody reconnects after a restart. */
  readonly reconnectSeconds: number;
  /** What comes near its bound; empty: one process is enough. */
  readonly warnings: readonly string[];
}

const DAY_SECONDS = 86_400;
/** Garbage waits for its collection, and connections that work hold more than those that were measured. */
const MEMORY_MARGIN = 2;
/** Above this share of the JavaScript thread queues build up at every burst. */
const MAIN_SHARE_MAX = 0.6;
const CONNECTIONS_MAX_DEFAULT = 20_000;
const FILE_ENTRIES_MAX = 100_000;
const HANDSHAKE_RATE_DEFAULT = 500;

/** Calculates. */
export function sizeFor(demand: Demand, figures: Figures): Sizing {
  const { memory, work, disk } = figures;
  const devices = demand.users * demand.devices;
  const connections = Math.ceil(devices * demand.online);
  const average = demand.users * demand.messages / DAY_SECONDS;
  const peak = average * demand.peak;
  // Each recipient that is there gets its message pushed and acknowledges it: as much as the first one.
  const delivered = 1 + (demand.recipients - 1) * demand.online;
  const stored = (demand.recipients - 1) * (1 - demand.online);
  const load = (kind: "cpuMs" | "mainMs") =>
    peak * (work.message[kind] * delivered + work.recipient[kind] * stored) / 1000;
  const cores = { all: load("cpuMs"), main: load("mainMs") };

  const waitingMessages = average * DAY_SECONDS * demand.waitingDays;
  const perMessage = demand.recipients * (1 - demand.online);
  const entriesWaiting = waitingMessages * perMessage;
  const use = disk.find(({ backend }) => backend === demand.backend)!;
  const storeBytes = waitingMessages * bytesOfMessage(use, demand.size) + entriesWaiting * use.bytesRecipient;
  const blobBytes = demand.users * demand.filesMib * 1024 ** 2 * demand.fileDays;
  // Blobs are linked, not copied, between backups on one disk.
  const backupBytes = storeBytes * demand.backups;
  const sizes = { storeBytes, blobBytes, backupBytes, spareBytes: storeBytes };
  const sizing = {
    connections,
    memoryBytes: memory.baseBytes +
      connections * Math.max(memory.subscribedBytes, memory.waitingBytes) * MEMORY_MARGIN,
    messagesPerSecond: { average, peak },
    cores,
    entriesWaiting,
    disk: { ...sizes, allBytes: storeBytes + blobBytes + backupBytes + storeBytes },
    reconnectSeconds: Math.max(
      connections * work.connect.mainMs / 1000,
      connections / HANDSHAKE_RATE_DEFAULT,
    ),
  };
  return { ...sizing, warnings: warningsOf(sizing, demand) };
}

/** Between the two sizes that were measured the overhead is even enough for a straight line. */
function bytesOfMessage(use: Figures["disk"][number], size: number): number {
  const slope = (use.bytes4096 - use.bytes512) / (4096 - 512);
  return Math.max(size, use.bytes512 + (size - 512) * slope);
}

function warningsOf(sizing: Omit<Sizing, "warnings">, demand: Demand): string[] {
  const { cores, connections, entriesWaiting } = sizing;
  const warnings = [];
  if (cores.main > MAIN_SHARE_MAX) {
    warnings.push(
      `the JavaScript thread is the bound: ${
        cores.main.toFixed(2)
      } cores at the peak, more than ${MAIN_SHARE_MAX}; ` +
        "split the users over several servers",
    );
  }
  if (connections > CONNECTIONS_MAX_DEFAULT) {
    warnings.push(
      `raise limits.connections_max: ${connections} connections, the default is ${CONNECTIONS_MAX_DEFAULT}`,
    );
  }
  const entriesADevice = entriesWaiting / (demand.users * demand.devices);
  if (demand.backend === "file" && entriesADevice > FILE_ENTRIES_MAX) {
    warnings.push(`the file store's queues end at ${FILE_ENTRIES_MAX} messages: use sqlcipher`);
  }
  return warnings;
}

/** The answer for people. */
export function describe(demand: Demand, sizing: Sizing): string {
  const { messagesPerSecond, cores, disk } = sizing;
  const rows = [
    ["connections at the busiest time", sizing.connections.toLocaleString("en")],
    [
      "messages a second, average / peak",
      `${figure(messagesPerSecond.average)} / ${figure(messagesPerSecond.peak)}`,
    ],
    ["memory (twice what was measured for each connection)", size(sizing.memoryBytes)],
    ["cores at the peak, all threads", figure(cores.all)],
    [`cores at the peak, JavaScript thread (at most ${MAIN_SHARE_MAX})`, figure(cores.main)],
    ["messages waiting, counted for each device", Math.round(sizing.entriesWaiting).toLocaleString("en")],
    [`store (${demand.backend})`, size(disk.storeBytes)],
    ["files", size(disk.blobBytes)],
    [`${demand.backups} backups on the same disk`, size(disk.backupBytes)],
    ["spare for a change of the database key", size(disk.spareBytes)],
    ["disk in all", size(disk.allBytes)],
    ["everybody back after a restart", `${Math.ceil(sizing.reconnectSeconds)} s`],
  ];
  const width = Math.max(...rows.map(([name]) => name!.length));
  const verdict = sizing.warnings.length === 0
    ? ["one server process is enough"]
    : sizing.warnings.map((warning) => `WARNING: ${warning}`);
  return [...rows.map(([name, value]) => `${name!.padEnd(width)}  ${value}`), ...verdict, ""].join("\n");
}

function figure(value: number): string {
  return Number(value.toPrecision(2)).toLocaleString("en", { maximumFractionDigits: 4 });
}

function size(bytes: number): string {
  return bytes < 1024 ** 3 ? `${Math.ceil(bytes / 1024 ** 2)} MiB` : `${(bytes / 1024 ** 3).toFixed(1)} GiB`;
}

const FLAGS = Object.keys(DEFAULT_DEMAND) as (keyof Demand)[];
const flagOf = (key: string) => `--${key.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

/** Reads `--users 500 …`; throws RangeError that says what is wrong. */
export function readDemand(args: readonly string[]): Demand {
  const demand: Record<string, number | string> = { ...DEFAULT_DEMAND };
  for (let at = 0; at < args.length; at += 2) {
    const [flag, text] = [args[at]!, args[at + 1]];
    const key = FLAGS.find((each) => flagOf(each) === flag);
    if (key === undefined) throw new RangeError(`There is no flag ${flag}: ${FLAGS.map(flagOf).join(" ")}`);
    demand[key] = key === "backend"
      ? backendOf(text)
      : numberOf(flag, { text, max: key === "online" ? 1 : 1e12 });
  }
  return demand as unknown as Demand;
}

function backendOf(text: string | undefined): StoreBackend {
  if (text === "sqlcipher" || text === "file") return text;
  throw new RangeError(`--backend is sqlcipher or file: ${text}`);
}

function numberOf(flag: string, { text, max }: { text: string | undefined; max: number }): number {
  const value = Number(text);
  if (text === undefined || text === "" || !(value >= 0 && value <= max)) {
    throw new RangeError(`${flag} is a number from 0 to ${max}: ${text}`);
  }
  return value;
}

if (import.meta.main) {
  const json = Deno.args.includes("--json");
  try {
    const demand = readDemand(Deno.args.filter((word) => word !== "--json"));
    const sizing = sizeFor(demand, await readFigures());
    console.log(json ? JSON.stringify({ demand, sizing }) : describe(demand, sizing).trimEnd());
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    console.error(error.message);
    Deno.exit(2);
  }
}
