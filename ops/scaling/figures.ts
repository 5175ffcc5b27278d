/** What was measured, and the tables of ops/scaling-guide.md that are made of it. */
import type { StoreBackend } from "../../mod/store/open.ts";
import type { Machine } from "./machine.ts";

/** Enqueue with so many requests in flight. */
export interface Throughput {
  readonly backend: StoreBackend;
  readonly inFlight: number;
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Processor time of the server for each message. */
  readonly cpuMs: number;
}

/** Bytes of a store for each message that waits. */
export interface DiskUse {
  readonly backend: StoreBackend;
  /** Of a payload of 512 and of 4,096 bytes, for one recipient. */
  readonly bytes512: number;
  readonly bytes4096: number;
  /** Of each further recipient of the same message. */
  readonly bytesRecipient: number;
}

/** A change of the database key under a running server. */
export interface KeyChange {
  readonly backend: StoreBackend;
  readonly storeBytes: number;
  readonly seconds: number;
  /** The longest time that a message waited for its reply meanwhile. */
  readonly waitedSeconds: number;
}

/** A unit of work: processor time of the whole process, and of its JavaScript thread, of which there is one. */
export interface Work {
  readonly cpuMs: number;
  readonly mainMs: number;
}

/** Everything that was measured in one run. */
export interface Figures {
  readonly format: 1;
  readonly version: string;
  readonly day: string;
  readonly machine: Machine;
  readonly quick: boolean;
  readonly memory: {
    readonly connections: number;
    readonly baseBytes: number;
    readonly idleBytes: number;
    readonly waitingBytes: number;
    readonly subscribedBytes: number;
  };
  readonly work: {
    readonly connect: Work;
    readonly login: Work;
    /** A message from the sender's enqueue to the recipient's ack, one at a time. */
    readonly message: Work;
    /** Storing it for one more recipient. */
    readonly recipient: Work;
  };
  readonly throughput: readonly Throughput[];
  readonly disk: readonly DiskUse[];
  readonly keyChange: readonly KeyChange[];
}

/** Name of the file with the figures that the guide shows and the calculator uses. */
export const FIGURES_FILE = new URL("./measured.json", import.meta.url);
const GUIDE_FILE = new URL("../scaling-guide.md", import.meta.url);
const BEGIN = "<!-- measured: deno task scaling --write -->";
const END = "<!-- end of measured -->";

/** Reads the committed figures. */
export async function readFigures(): Promise<Figures> {
  return JSON.parse(await Deno.readTextFile(FIGURES_FILE));
}

/** Replaces the committed figures, and the guide's tables. */
export async function writeFigures(figures: Figures): Promise<void> {
  await Deno.writeTextFile(FIGURES_FILE, JSON.stringify(figures, null, 2) + "\n");
  await Deno.writeTextFile(GUIDE_FILE, withTables(await Deno.readTextFile(GUIDE_FILE), figures));
}

/** `guide` with the tables of `figures` between its marks. */
export function withTables(guide: string, figures: Figures): string {
  const [begin, end] = [guide.indexOf(BEGIN), guide.indexOf(END)];
  if (begin < 0 || end < begin) throw new Error(`The guide has lost its marks: ${BEGIN} … ${END}`);
  return guide.slice(0, begin + BEGIN.length) + `\n\n${tables(figures)}\n` + guide.slice(end);
}

/** The tables as Markdown. */
export function tables(figures: Figures): string {
  const { machine, memory, work, throughput, disk, keyChange } = figures;
  const one = throughput.find(({ backend, inFlight }) => backend === "sqlcipher" && inFlight === 1);
  return [
    `- Version ${figures.version} on Deno ${machine.deno}, ${figures.day}${
      figures.quick ? ", quick run" : ""
    }`,
    `- ${machine.processor}, ${machine.cores} cores shared with the load generator`,
    `- ${gib(machine.memoryBytes)} GiB, ${machine.system}, fsync ${
      machine.fsyncMs.toFixed(2)
    } ms, load before the run ${machine.loadBefore.toFixed(1)}`,
    "",
    table(["memory", "figure"], [
      ["the server without connections", `${mib(memory.baseBytes)} MiB`],
      ["each connection, idle", `${kib(memory.idleBytes)} KiB`],
      ["each connection with a parked FetchWait", `${kib(memory.waitingBytes)} KiB`],
      ["each connection with a Subscribe", `${kib(memory.subscribedBytes)} KiB`],
    ]),
    "",
    table(
      ["processor time of the server", "all threads", "JavaScript thread", "so at most, on one process"],
      [
        workRow("a connection with Resume", work.connect),
        workRow("a login with a password", work.login),
        workRow("a message from enqueue to ack, one at a time", work.message),
        workRow("each further recipient, stored", work.recipient),
      ],
    ),
    "",
    table(
      ["enqueue of 512 bytes, durable", "in flight", "messages/s", "p50", "p99", "processor time", "ratio"],
      throughput.map((row) => [
        row.backend,
        `${row.inFlight}`,
        count(row.perSecond),
        `${row.p50Ms.toFixed(1)} ms`,
        `${row.p99Ms.toFixed(1)} ms`,
        `${row.cpuMs.toFixed(3)} ms`,
        one ? `${(row.perSecond / one.perSecond).toFixed(1)}` : "",
      ]),
    ),
    "",
    table(
      ["disk for each message that waits", "512 bytes", "4,096 bytes", "each further recipient"],
      disk.map((row) => [
        row.backend,
        `${count(row.bytes512)} (×${(row.bytes512 / 512).toFixed(2)})`,
        `${count(row.bytes4096)} (×${(row.bytes4096 / 4096).toFixed(2)})`,
        count(row.bytesRecipient),
      ]),
    ),
    "",
    table(
      ["rotate db-key, server running", "store", "takes", "a write waits at most", "that is, for each GiB"],
      keyChange.map((row) => [
        row.backend,
        `${mib(row.storeBytes)} MiB`,
        `${row.seconds.toFixed(1)} s`,
        `${row.waitedSeconds.toFixed(1)} s`,
        `${(row.waitedSeconds * 1024 ** 3 / row.storeBytes).toFixed(0)} s`,
      ]),
    ),
    "",
  ].join("\n");
}

function workRow(name: string, { cpuMs, mainMs }: Work): string[] {
  return [name, `${cpuMs.toFixed(3)} ms`, `${mainMs.toFixed(3)} ms`, `${count(1000 / mainMs)}/s`];
}

/** A Markdown table as `deno fmt` leaves it. */
function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((cell, column) =>
    Math.max(3, cell.length, ...rows.map((row) => row[column]!.length))
  );
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, column) => cell.padEnd(widths[column]!)).join(" | ")} |`;
  return [line(head), line(widths.map((width) => "-".repeat(width))), ...rows.map(line)].join("\n");
}

/** `12,300`: three figures are all that such a measurement has. */
function count(value: number): string {
  return Number(value.toPrecision(3)).toLocaleString("en");
}

function kib(bytes: number): string {
  return (bytes / 1024).toFixed(0);
}

function mib(bytes: number): string {
  return (bytes / 1024 ** 2).toFixed(0);
}

function gib(bytes: number): string {
  return (bytes / 1024 ** 3).toFixed(0);
}
