/**
 * A disk that remembers every change and every sync of what lies under one folder, and says what a power cut may
 * leave: what was synced is there; of the rest each change may be there, be missing, or be there in a part.
 *
 *   - The bytes of a file are certain after a sync of that file, its name and that of a folder after a sync of the
 *     folder around it. A rename inside one folder happens or does not; between two folders it is a new name here
 *     and a lost one there, each for itself.
 *   - Bytes that are not synced come in sectors: each is new, or what was there before (zeros at the end of a file).
 */
import { dirname, join, relative } from "node:path";
import type { Bytes } from "../../mod/base/bytes.ts";
import { type Disk, type DiskFile, type OpenMode, realDisk } from "../../mod/store/file/disk.ts";

/** One call that changed something, or made changes certain. Paths are relative to the folder; files are numbers. */
type Step =
  | { readonly kind: "write"; readonly file: number; readonly offset: number; readonly bytes: Bytes }
  | { readonly kind: "truncate"; readonly file: number; readonly size: number }
  | { readonly kind: "sync"; readonly file: number }
  | { readonly kind: "link" | "unlink"; readonly path: string; readonly file: number }
  | { readonly kind: "move"; readonly path: string; readonly from: string; readonly file: number }
  | { readonly kind: "folder" | "syncFolder"; readonly path: string };

/** What was done to a disk, in order. */
export type History = readonly Step[];

/** What is left of a change that was not synced. */
export type Fate = "kept" | "lost" | "torn";

/** Every file under the folder, and every folder as null. */
export type Image = ReadonlyMap<string, Bytes | null>;

const SECTOR_BYTES = 512;

/** The real disk, whose changes under `root` are remembered. */
export class PowerDisk implements Disk {
  readonly #root: string;
  readonly #steps: Step[];
  readonly #files = new Map<string, number>();
  #fileCount = 0;

  /** With a history: `root` is what the kernel has after it, synced or not. */
  constructor(root: string, history: History = []) {
    this.#root = root;
    this.#steps = [...history];
    for (const step of history) if ("file" in step) this.#name(step);
  }

  /** Everything that was done until now. */
  get history(): History {
    return [...this.#steps];
  }

  /** How many steps that are. */
  get stepCount(): number {
    return this.#steps.length;
  }

  #name(step: Extract<Step, { file: number }>): void {
    this.#fileCount = Math.max(this.#fileCount, step.file);
    if (step.kind === "link" || step.kind === "move") this.#files.set(step.path, step.file);
    if (step.kind === "unlink") this.#files.delete(step.path);
    if (step.kind === "move") this.#files.delete(step.from);
  }

  #add(step: Step): void {
    this.#steps.push(step);
    if ("file" in step) this.#name(step);
  }

  #relative(path: string): string {
    return relative(this.#root, path);
  }

  list = realDisk.list;

  async makeFolder(path: string): Promise<void> {
    const there = await realDisk.list(path) !== null;
    await realDisk.makeFolder(path);
    if (!there) this.#add({ kind: "folder", path: this.#relative(path) });
  }

  async open(path: string, mode: OpenMode): Promise<DiskFile> {
    const opened = await realDisk.open(path, mode);
    const name = this.#relative(path);
    let file = this.#files.get(name);
    if (file === undefined) this.#add({ kind: "link", path: name, file: file = this.#fileCount + 1 });
    else if (mode === "create") this.#add({ kind: "truncate", file, size: 0 });
    return this.#recorded(opened, file);
  }

  #recorded(opened: DiskFile, file: number): DiskFile {
    return {
      size: () => opened.size(),
      read: (offset, length) => opened.read(offset, length),
      write: async (offset, bytes) => {
        await opened.write(offset, bytes);
        this.#add({ kind: "write", file, offset, bytes: bytes.slice() });
      },
      truncate: async (size) => {
        await opened.truncate(size);
        this.#add({ kind: "truncate", file, size });
      },
      // What no disk shows: the model's promise is the sync, and the real one would only cost time.
      sync: async () => this.#add({ kind: "sync", file }),
      close: () => opened.close(),
    };
  }

  async rename(from: string, to: string): Promise<void> {
    await realDisk.rename(from, to);
    const [here, path] = [this.#relative(from), this.#relative(to)];
    const file = this.#files.get(here)!;
    if (dirname(here) === dirname(path)) return this.#add({ kind: "move", path, from: here, file });
    this.#add({ kind: "link", path, file });
    this.#add({ kind: "unlink", path: here, file });
  }

  async remove(path: string): Promise<void> {
    await realDisk.remove(path);
    const name = this.#relative(path);
    this.#add({ kind: "unlink", path: name, file: this.#files.get(name)! });
  }

  async syncFolder(path: string): Promise<void> {
    this.#add({ kind: "syncFolder", path: this.#relative(path) });
  }
}

/** Which steps of a history no power cut can undo. */
function certainSteps(history: History): ReadonlySet<Step> {
  const certain = new Set<Step>();
  const [files, folders] = [new Set<number>(), new Set<string>()];
  for (const step of history.toReversed()) {
    if (step.kind === "sync") files.add(step.file);
    else if (step.kind === "syncFolder") folders.add(step.path);
    else if (step.kind === "write" || step.kind === "truncate") {
      if (files.has(step.file)) certain.add(step);
    } else if (folders.has(folderOf(step.path))) certain.add(step);
  }
  return certain;
}

/** As {@link relative} has it: the folder itself is "". */
function folderOf(path: string): string {
  const folder = dirname(path);
  return folder === "." ? "" : folder;
}

/** What is on disk after `history` when each change that is not certain has the fate that `fateOf` gives it. */
export function imageAfter(
  history: History,
  fateOf: (uncertain: number) => Fate,
  random: () => number,
): Image {
  const certain = certainSteps(history);
  const contents = new Map<number, Bytes>();
  const names = new Map<string, number | null>();
  let uncertain = 0;
  for (const step of history) {
    if (step.kind === "sync" || step.kind === "syncFolder") continue;
    const fate = certain.has(step) ? "kept" : fateOf(uncertain++);
    if (fate !== "lost") apply(step, { contents, names, torn: fate === "torn", random });
  }
  return reachable(names, contents);
}

/** How many changes of a history are not certain. */
export function uncertainSteps(history: History): number {
  const certain = certainSteps(history);
  return history.filter((step) => step.kind !== "sync" && step.kind !== "syncFolder" && !certain.has(step))
    .length;
}

function apply(
  step: Step,
  { contents, names, torn, random }: {
    contents: Map<number, Bytes>;
    names: Map<string, number | null>;
    torn: boolean;
    random: () => number;
  },
): void {
  switch (step.kind) {
    case "write": {
      const { file, offset } = step;
      const bytes = torn ? sectors(contents.get(file), step, random) : step.bytes;
      const before = contents.get(file) ?? new Uint8Array(0);
      const after = new Uint8Array(Math.max(before.length, offset + bytes.length));
      after.set(before);
      after.set(bytes, offset);
      contents.set(file, after);
      break;
    }
    case "truncate": {
      const after = new Uint8Array(step.size);
      after.set((contents.get(step.file) ?? new Uint8Array(0)).subarray(0, step.size));
      contents.set(step.file, after);
      break;
    }
    case "folder":
      names.set(step.path, null);
      break;
    case "unlink":
      names.delete(step.path);
      break;
    case "link":
    case "move":
      if (step.kind === "move") names.delete(step.from);
      names.set(step.path, step.file);
  }
}

/** The bytes of a write of which some sectors, and perhaps the end, have not reached the disk. */
function sectors(
  before: Bytes = new Uint8Array(0),
  { offset, bytes }: { offset: number; bytes: Bytes },
  random: () => number,
): Bytes {
  const left = bytes.slice(0, Math.ceil(random() * bytes.length));
  for (let at = 0; at < left.length;) {
    const end = Math.min(left.length, at + SECTOR_BYTES - (offset + at) % SECTOR_BYTES);
    if (random() < 0.5) {
      left.fill(0, at, end);
      left.set(before.subarray(offset + at, offset + end), at);
    }
    at = end;
  }
  return left;
}

/** Names whose folders are there as well. */
function reachable(names: ReadonlyMap<string, number | null>, contents: ReadonlyMap<number, Bytes>): Image {
  const image = new Map<string, Bytes | null>();
  for (const path of [...names.keys()].sort()) {
    const folder = folderOf(path);
    if (folder !== "" && image.get(folder) !== null) continue;
    const file = names.get(path)!;
    image.set(path, file === null ? null : contents.get(file) ?? new Uint8Array(0));
  }
  return image;
}

/** Makes an empty folder hold what an image says. */
export async function writeImage(image: Image, folder: string): Promise<void> {
  for (const [path, bytes] of image) {
    if (bytes === null) await Deno.mkdir(join(folder, path), { mode: 0o700 });
    else await Deno.writeFile(join(folder, path), bytes, { mode: 0o600 });
  }
}
