import assert from "node:assert/strict";
import { raiseUdpBuffers } from "../../../mod/transport/udp_buffers.ts";

Deno.test({
  name: "raiseUdpBuffers() raises the buffer of the socket on that port",
  ignore: Deno.build.os !== "linux",
  fn() {
    const socket = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
    const { port } = socket.addr as Deno.NetAddr;
    const small = raiseUdpBuffers(port, 64 * 1024);
    const larger = raiseUdpBuffers(port, 128 * 1024);
    socket.close();
    // Linux reports twice what it was asked for, up to net.core.rmem_max, which is at least 128 kB everywhere.
    assert.equal(small, 2 * 64 * 1024);
    assert.equal(larger, 2 * 128 * 1024);
  },
});

Deno.test("raiseUdpBuffers() is null for a port without a socket, and never throws", () => {
  const socket = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  const { port } = socket.addr as Deno.NetAddr;
  socket.close();
  assert.equal(raiseUdpBuffers(port, 1_000), null);
});

Deno.test({
  name: "raiseUdpBuffers() is null without the permissions",
  permissions: { net: true, ffi: false, read: false },
  fn() {
    const socket = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
    const { port } = socket.addr as Deno.NetAddr;
    assert.equal(raiseUdpBuffers(port, 1_000), null);
    socket.close();
  },
});
