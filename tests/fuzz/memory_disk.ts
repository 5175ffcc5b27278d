/** A disk in memory: files by path. */
import type { Disk, DiskFile } from "../../mod/store/file/disk.ts";

/** For readers that are tried many thousand times. */
export class MemoryDisk implements Disk {
  readonly files = new Map<string, Uint8Array<ArrayBuffer>>();

  async list(folder: string): Promise<string[] | null> {
    const names = [...this.files.keys()].filter((path) => path.startsWith(`${folder}/`));
    return names.length === 0 ? null : names.map((path) => path.slice(folder.length + 1));
  }

  async makeFolder(): Promise<void> {}
  async syncFolder(): Promise<void> {}

  async open(path: string, mode: "create" | "write" | "read"): Promise<DiskFile> {
    if (mode === "create") this.files.set(path, new Uint8Array(0));
    const get = () => this.files.get(path) ?? new Uint8Array(0);
    if (!this.files.has(path)) throw new Deno.errors.NotFound(path);
    const resize = (size: number) => {
      const resized = new Uint8Array(size);
      resized.set(get().subarray(0, size));
      this.files.set(path, resized);
    };
    return {
      size: async () => get().length,
      read: async (offset, length) => get().slice(offset, offset + length),
      async write(offset, bytes) {
        if (get().length < offset + bytes.length) resize(offset + bytes.length);
        get().set(bytes, offset);
      },
      truncate: async (size) => resize(size),
      sync: async () => {},
      close: () => {},
    };
  }

  async rename(from: string, to: string): Promise<void> {
    this.files.set(to, this.files.get(from)!);
    this.files.delete(from);
  }

  async remove(path: string): Promise<void> {
    this.files.delete(path);
  }
}
