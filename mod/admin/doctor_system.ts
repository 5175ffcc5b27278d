/** The machine: UDP buffers, open files, memory, swap and core dumps (where keys in memory may end up), the clock. */
import { join } from "node:path";
import { type DoctorCheck, type DoctorContext, fail, ok, showAge, showBytes, warn } from "./doctor_check.ts";
import { readKernelFile, resourceLimit } from "./doctor_kernel.ts";

/** Reconnect storms collapse with the default of 212 kB (1,000 clients: 20 s and 20 % failures; with this none). */
const UDP_BYTES_MIN = 4_000_000;
/** Beside one for each connection's streams: database, blobs, uploads, metrics. */
const FILES_RESERVE = 512;
const HOUR_MS = 3_600_000;
/** This program did not exist before, and its certificates end before that. */
const YEARS = { min: 2026, max: 2100 };

/** Everything about the machine. */
export async function systemGroup(context: DoctorContext): Promise<DoctorCheck[]> {
  return [
    ...udpChecks(context),
    ...filesCheck(context),
    ...memoryChecks(context),
    swapCheck(),
    ...coreCheck(),
    await clockCheck(context),
  ];
}

function udpChecks({ admin, settings }: DoctorContext): DoctorCheck[] {
  const name = "UDP buffers";
  const remedy =
    "sysctl -w net.core.rmem_max=4194304 net.core.wmem_max=4194304, the same in /etc/sysctl.d/, then restart";
  const given = admin.server?.vitals().udpBufferBytes;
  if (typeof given === "number") {
    return [
      given >= Math.min(settings.udpBufferBytes, UDP_BYTES_MIN)
        ? ok(name, `the server has ${showBytes(given)}`)
        : warn(name, `the server got ${showBytes(given)} of ${showBytes(settings.udpBufferBytes)}`, remedy),
    ];
  }
  const max = Number(readKernelFile("/proc/sys/net/core/rmem_max") ?? NaN);
  if (Number.isNaN(max)) return [];
  return [
    max >= UDP_BYTES_MIN
      ? ok(name, `net.core.rmem_max is ${showBytes(max)}`)
      : warn(name, `net.core.rmem_max is ${showBytes(max)}: many clients at once lose packets`, remedy),
  ];
}

function filesCheck({ settings }: DoctorContext): DoctorCheck[] {
  const limit = resourceLimit("files");
  if (limit === null) return [];
  // QUIC needs one socket for all connections: what takes descriptors are blobs that come and go.
  const wanted = 2 * settings.limits.blobUploadsMax + FILES_RESERVE;
  if (limit >= wanted) return [ok("open files", `up to ${limit}`)];
  return [
    warn(
      "open files",
      `only ${limit} may be open; ${wanted} are wanted`,
      "Raise LimitNOFILE in the systemd unit, or ulimit -n",
    ),
  ];
}

function memoryChecks({ settings }: DoctorContext): DoctorCheck[] {
  const { total } = Deno.systemMemoryInfo();
  const wanted = settings.limits.memoryBytesMax;
  const found = `${showBytes(total)}; requests and replies may take ${showBytes(wanted)}`;
  if (wanted <= total / 2) return [ok("memory", found)];
  return [warn("memory", found, "Lower limits.memory_bytes_max to half of the memory")];
}

function swapCheck(): DoctorCheck {
  const { swapTotal } = Deno.systemMemoryInfo();
  if (swapTotal === 0) return ok("swap", "none");
  return warn(
    "swap",
    `${showBytes(swapTotal)}: the database key and messages in memory may be written there`,
    "Encrypt swap, or set MemorySwapMax=0 in the systemd unit (--memory-swap for containers)",
  );
}

function coreCheck(): DoctorCheck[] {
  const limit = resourceLimit("core");
  if (limit === null) return [];
  const pattern = readKernelFile("/proc/sys/kernel/core_pattern")?.trim() ?? "";
  // A pattern that pipes to a program is used whatever the limit, unless that is 0 and the program asks.
  if (limit === 0) return [ok("core dumps", "off")];
  return [
    warn(
      "core dumps",
      `a crash writes the memory, with the database key, to ${pattern === "" ? "a file" : pattern}`,
      "Set LimitCORE=0 in the systemd unit, or ulimit -c 0",
    ),
  ];
}

async function clockCheck({ admin, settings }: DoctorContext): Promise<DoctorCheck> {
  const name = "clock";
  const now = admin.clock.now();
  const shown = new Date(now).toISOString();
  const remedy = "Set the clock (NTP: timedatectl set-ntp true)";
  const year = new Date(now).getUTCFullYear();
  if (year < YEARS.min || year > YEARS.max) return fail(name, `it is ${shown}`, remedy);
  const paused = admin.server?.expiryPausedBecause;
  if (paused) {
    return warn(name, `nothing expires: ${paused}`, "Check the clock, then `qpq-server expiry resume`");
  }
  const newest = await newestChange(settings.dataDir);
  if (newest - now > HOUR_MS) {
    return fail(name, `it is ${shown}, but the data was changed ${showAge(newest - now)} after that`, remedy);
  }
  return ok(name, shown);
}

/** When something in the data folder was last written; 0 when nothing was. */
async function newestChange(dataDir: string): Promise<number> {
  const paths = ["qpq.db", "qpq.db-wal", "journal", "audit.log", "lock"].map((name) => join(dataDir, name));
  const times = await Promise.all(
    paths.map((path) => Deno.stat(path).then(({ mtime }) => mtime?.getTime() ?? 0, () => 0)),
  );
  return Math.max(...times);
}
