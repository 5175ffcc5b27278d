/** What a measurement was made on (Linux: it reads /proc). */
import { randomBytes } from "../../mod/base/bytes.ts";

/** A machine, and how busy it was. */
export interface Machine {
  readonly processor: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly system: string;
  readonly deno: string;
  /** Median of a 4 KiB write with fsync in the folder that was used. */
  readonly fsyncMs: number;
  /** Of the last minute before the run: others at work make every figure worse. */
  readonly loadBefore: number;
}

/** This machine, with the disk of `folder` (null: that of temporary files). */
export async function describeMachine(folder: string | null): Promise<Machine> {
  const model = /^model name\s*:\s*(.+)$/m.exec(await Deno.readTextFile("/proc/cpuinfo"))?.[1];
  return {
    processor: model ?? Deno.build.arch,
    cores: navigator.hardwareConcurrency,
    memoryBytes: Deno.systemMemoryInfo().total,
    system: `Linux ${Deno.osRelease()}`,
    deno: Deno.version.deno,
    loadBefore: Deno.loadavg()[0]!,
    fsyncMs: await fsyncTime(folder),
  };
}

async function fsyncTime(folder: string | null): Promise<number> {
  const path = await Deno.makeTempFile({ prefix: "qpq-fsync-", ...(folder === null ? {} : { dir: folder }) });
  try {
    using file = await Deno.open(path, { write: true });
    const times: number[] = [];
    for (let round = 0; round < 50; round++) {
      const begin = performance.now();
      await file.write(randomBytes(4096));
      await file.sync();
      times.push(performance.now() - begin);
    }
    return quantile(times, 0.5);
  } finally {
    await Deno.remove(path);
  }
}

/** The value that `share` (0 to 1) of `values` do not exceed. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!;
}
