/**
 * Larger UDP buffers for a QUIC socket. Deno has no call for it, and the kernel's default of 212 kB collapses in
 * reconnect storms (1,000 clients: 20 s and 20 % failures; with 4 MB 0.64 s and none). So, on Linux: find the
 * descriptor by its port with getsockname and call setsockopt, through FFI. Needs --allow-ffi; /proc would need
 * --allow-all.
 */

const SOL_SOCKET = 1;
const SO_TYPE = 3;
const SOCK_DGRAM = 2;
const AF_INET = 2;
const AF_INET6 = 10;
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
/** The same beyond net.core.rmem_max, for who has CAP_NET_ADMIN. */
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;

/** Descriptors that are looked at: the socket is among the first that a server opens. */
const DESCRIPTORS_MAX = 4096;
/** A struct sockaddr_in6. */
const SOCKET_ADDRESS_BYTES = 28;

const SYMBOLS = {
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
} as const;

/**
 * Asks for receive and send buffers of `bytes` for this process's UDP socket(s) on `port`. Returns what the kernel
 * then reports for receiving (Linux doubles the wish; less than `bytes`: net.core.rmem_max is too small), or null
 * where it cannot be done: another system, no permission. Never throws.
 */
export function raiseUdpBuffers(port: number, bytes: number): number | null {
  if (Deno.build.os !== "linux") return null;
  try {
    const library = Deno.dlopen("libc.so.6", SYMBOLS);
    try {
      const descriptors = udpDescriptors(library, port);
      if (descriptors.length === 0) return null;
      return Math.min(...descriptors.map((descriptor) => raise(library, descriptor, bytes)));
    } finally {
      library.close();
    }
  } catch {
    // A hint to the kernel, not a condition: whoever called says in its log what is missing.
    return null;
  }
}

type Library = Deno.DynamicLibrary<typeof SYMBOLS>;

function raise(library: Library, descriptor: number, bytes: number): number {
  const wish = new Uint8Array(new Int32Array([bytes]).buffer);
  for (const option of [SO_RCVBUF, SO_SNDBUF, SO_RCVBUFFORCE, SO_SNDBUFFORCE]) {
    // An option that is refused leaves what the one before it has set.
    library.symbols.setsockopt(descriptor, SOL_SOCKET, option, wish, 4);
  }
  return socketOption(library, descriptor, SO_RCVBUF)!;
}

/** An integer option of a socket; null when the descriptor is no socket. */
function socketOption(library: Library, descriptor: number, option: number): number | null {
  const value = new Int32Array(1);
  const bytes = new Uint8Array(value.buffer);
  const length = new Uint8Array(new Uint32Array([bytes.length]).buffer);
  const status = library.symbols.getsockopt(descriptor, SOL_SOCKET, option, bytes, length);
  return status === 0 ? value[0]! : null;
}

/** Descriptors of this process that are UDP sockets bound to `port`. */
function udpDescriptors(library: Library, port: number): number[] {
  const descriptors: number[] = [];
  const address = new Uint8Array(SOCKET_ADDRESS_BYTES);
  const view = new DataView(address.buffer);
  for (let descriptor = 0; descriptor < DESCRIPTORS_MAX; descriptor++) {
    if (socketOption(library, descriptor, SO_TYPE) !== SOCK_DGRAM) continue;
    const length = new Uint8Array(new Uint32Array([address.length]).buffer);
    if (library.symbols.getsockname(descriptor, address, length) !== 0) continue;
    const family = view.getUint16(0, true);
    if ((family === AF_INET || family === AF_INET6) && view.getUint16(2) === port) {
      descriptors.push(descriptor);
    }
  }
  return descriptors;
}
