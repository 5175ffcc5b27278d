/**
 * What the kernel tells of itself and of this process, on Linux: files under /proc, and limits of resources. Deno
 * opens /proc only for programs that may do everything, so this goes through the C library; null where there is no
 * glibc or no such file.
 */

const SYMBOLS = {
  open: { parameters: ["buffer", "i32"], result: "i32" },
  read: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  close: { parameters: ["i32"], result: "i32" },
  getrlimit: { parameters: ["i32", "buffer"], result: "i32" },
} as const;

type Library = Deno.DynamicLibrary<typeof SYMBOLS>;

/** Large enough for every file that is asked for. */
const FILE_BYTES_MAX = 65_536;

/** Numbers of <sys/resource.h> on Linux. */
const RESOURCES = { core: 4, files: 7 } as const;

/** RLIM_INFINITY. */
const UNLIMITED = 0xffff_ffff_ffff_ffffn;

/** Text of a small file under /proc or /sys; null where it cannot be read. */
export function readKernelFile(path: string): string | null {
  return withLibrary((library) => {
    const descriptor = library.symbols.open(new TextEncoder().encode(`${path}\0`), 0);
    if (descriptor < 0) return null;
    try {
      const bytes = new Uint8Array(FILE_BYTES_MAX);
      let length = 0;
      for (;;) {
        const read = Number(
          library.symbols.read(descriptor, bytes.subarray(length), BigInt(FILE_BYTES_MAX - length)),
        );
        if (read < 0) return null;
        length += read;
        if (read === 0 || length === FILE_BYTES_MAX) {
          return new TextDecoder().decode(bytes.subarray(0, length));
        }
      }
    } finally {
      library.symbols.close(descriptor);
    }
  });
}

/** This process's soft limit of a resource; Infinity: none. Null where it is not known. */
export function resourceLimit(resource: keyof typeof RESOURCES): number | null {
  return withLibrary((library) => {
    const limits = new BigUint64Array(2);
    const status = library.symbols.getrlimit(RESOURCES[resource], new Uint8Array(limits.buffer));
    if (status !== 0) return null;
    return limits[0] === UNLIMITED ? Infinity : Number(limits[0]);
  });
}

function withLibrary<Value>(work: (library: Library) => Value | null): Value | null {
  if (Deno.build.os !== "linux") return null;
  try {
    using library = new Opened();
    return work(library.library);
  } catch {
    // musl, or no permission: whoever asks says that it is not known.
    return null;
  }
}

class Opened implements Disposable {
  readonly library = Deno.dlopen("libc.so.6", SYMBOLS);
  [Symbol.dispose](): void {
    this.library.close();
  }
}
