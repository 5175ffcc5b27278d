/** A disk of a given size: what does not fit is refused as the operating system refuses it. */
import type { Disk, DiskFile } from "../../mod/store/file/disk.ts";
import { realDisk } from "../../mod/store/file/disk.ts";

/** The real disk with room for `bytes` more; `makeRoom` changes that. */
export class SmallDisk implements Disk {
  #roomBytes: number;

  constructor(bytes: number) {
    this.#roomBytes = bytes;
  }

  /** Sets the room that is left. */
  makeRoom(bytes: number): void {
    this.#roomBytes = bytes;
  }

  list = realDisk.list;
  makeFolder = realDisk.makeFolder;
  rename = realDisk.rename;
  remove = realDisk.remove;
  syncFolder = realDisk.syncFolder;

  async open(path: string, mode: "create" | "write" | "read"): Promise<DiskFile> {
    const file = await realDisk.open(path, mode);
    return {
      size: () => file.size(),
      read: (offset, length) => file.read(offset, length),
      truncate: (size) => file.truncate(size),
      sync: () => file.sync(),
      close: () => file.close(),
      write: async (offset, bytes) => {
        if (bytes.length > this.#roomBytes) {
          throw Object.assign(new Error("No space left on device (os error 28)"), { code: "ENOSPC" });
        }
        this.#roomBytes -= bytes.length;
        await file.write(offset, bytes);
      },
    };
  }
}
