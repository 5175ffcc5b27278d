/**
 * Versions of the server's keys: `rotations.json` in the data folder, written after each rotation. It tells what
 * happened and holds no secret; no key depends on it, and a damaged one is put aside.
 */
import { join } from "node:path";
import { readTextIfThere } from "../base/files.ts";
import { logger } from "../base/log.ts";
import type { AdminContext } from "./operations.ts";
import { writeSecretFile } from "./secret_file.ts";

const log = logger("rotate");

/** Name of the file in the data folder. */
export const ROTATIONS_FILE = "rotations.json";
/** Entries kept for each key; the version goes on rising. */
const HISTORY_MAX = 100;

/** Keys that can be rotated: also values of the label `key` of the metrics. */
export const ROTATED_KEYS = ["auth-token", "tls", "federation", "db-key", "opaque"] as const;

/** Name of a key. */
export type RotatedKey = (typeof ROTATED_KEYS)[number];

/** One rotation. */
export interface RotationEntry {
  /** 1 is what the first start made. */
  readonly version: number;
  /** Unix ms. */
  readonly at: number;
  readonly via: "running" | "stopped";
  /** In words, without secrets. */
  readonly how: string;
}

/** Rotations of each key, oldest first; none of a key that still is what the first start made. */
export type Rotations = Readonly<Partial<Record<RotatedKey, readonly RotationEntry[]>>>;

/** Reads the history of a data folder. */
export async function readRotations(dataDir: string): Promise<Rotations> {
  const path = join(dataDir, ROTATIONS_FILE);
  const text = await readTextIfThere(path);
  if (text === null) return {};
  try {
    const { format, keys } = JSON.parse(text);
    if (format === 1 && typeof keys === "object" && keys !== null) return keys;
  } catch {
    // Told below, like a file that is JSON and something else.
  }
  await Deno.rename(path, `${path}.damaged`);
  log.warn("the history of rotations was damaged and is now {path}", { path: `${path}.damaged` });
  return {};
}

/** The last rotation of a key; null when it never was. */
export function lastRotation(rotations: Rotations, key: RotatedKey): RotationEntry | null {
  return rotations[key]?.at(-1) ?? null;
}

/** The present version: 1 is what the first start made; of federation it makes nothing. */
export function versionOf(rotations: Rotations, key: RotatedKey): number {
  return lastRotation(rotations, key)?.version ?? (key === "federation" ? 0 : 1);
}

/** A rotation is done and durable: writes the history, tells log and metrics. Returns the key's new version. */
export async function finishRotation(context: AdminContext, key: RotatedKey, how: string): Promise<number> {
  const { settings, clock, via, server } = context;
  const version = await recordRotation(settings.dataDir, key, { at: clock.now(), via, how });
  server?.rotated(key);
  return version;
}

/** Writes the history alone. */
export async function recordRotation(
  dataDir: string,
  key: RotatedKey,
  rotation: Omit<RotationEntry, "version">,
): Promise<number> {
  const rotations = await readRotations(dataDir);
  const version = versionOf(rotations, key) + 1;
  const keys = {
    ...rotations,
    [key]: [...(rotations[key] ?? []), { version, ...rotation }].slice(-HISTORY_MAX),
  };
  await writeSecretFile(join(dataDir, ROTATIONS_FILE), JSON.stringify({ format: 1, keys }, null, 2) + "\n");
  log.info("rotated {what} (version {version}): {how}", { what: key, version, how: rotation.how });
  return version;
}
