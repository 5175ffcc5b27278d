/** HTTP requests to the metrics listener and to the control socket, as bytes: right ones, and whatever else comes. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { concat, utf8 } from "../../mod/base/bytes.ts";
import { systemClock } from "../../mod/base/clock.ts";
import { startControlServer } from "../../mod/admin/control.ts";
import { startHealthServer } from "../../mod/observe/health.ts";
import { Metrics } from "../../mod/observe/metrics.ts";
import type { Random } from "./random.ts";
import type { Target } from "./target.ts";

const METHODS = ["GET", "HEAD", "POST", "PUT", "OPTIONS", "CONNECT", "get", ""];
const PATHS = [
  "/",
  "/metrics",
  "/readyz",
  "/healthz",
  "/echo",
  "/../x",
  "//",
  "/%00",
  "/status.json?range=x&since=NaN",
  "*",
  "http://x.y/",
];
const HEADERS = [
  "Host: localhost",
  "Host: evil.example",
  "Origin: null",
  "Content-Length: 9",
  "Content-Length: -1",
  "Transfer-Encoding: chunked",
  "Expect: 100-continue",
  "X: \u0000",
  "Range: bytes=0-",
];
const BODIES = [
  "",
  "{}",
  "[]",
  "null",
  '{"a":',
  "2\r\n{}\r\n0\r\n\r\n",
  "ffffffffffffffff\r\n",
  '{"__proto__":{"x":1}}',
];

function randomRequest(random: Random): Uint8Array {
  const body = random.pick(BODIES);
  const headers = [
    random.oneIn(3) ? "X: y" : "Host: x",
    `Content-Length: ${body.length}`,
    ...random.list(3, () => random.pick(HEADERS)),
  ];
  const version = random.oneIn(8) ? random.pick(["HTTP/1.0", "HTTP/2.0", ""]) : "HTTP/1.1";
  return utf8(
    `${random.pick(METHODS)} ${random.pick(PATHS)} ${version}\r\n${headers.join("\r\n")}\r\n\r\n${body}`,
  );
}

/** Writes the bytes, ends its side and reads to the end: the statuses of the answers. */
async function exchange(connection: Deno.Conn, input: Uint8Array): Promise<number[]> {
  using _ = connection;
  const sent = (async () => {
    for (let at = 0; at < input.length;) at += await connection.write(input.subarray(at));
    await connection.closeWrite();
  })().catch(() => {}); // the server may have hung up
  const answer = await new Response(connection.readable).text().catch(() => "");
  await sent;
  return [...answer.matchAll(/^HTTP\/1\.[01] (\d{3}) /gm)].map(([, status]) => Number(status));
}

/** A right request after it is answered. */
const LAST = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/** Never an internal error, and the next connection is served. */
async function metricsListener(): Promise<Target> {
  const metrics = new Metrics({ version: "fuzz", methods: [], limits: [], clock: systemClock });
  const listen = { hostname: "127.0.0.1", port: 0 };
  const server = startHealthServer({ listen, metrics, checks: async () => [{ name: "store", ok: true }] });
  return {
    name: "http_metrics",
    generate: randomRequest,
    async run(input) {
      const statuses = await exchange(await Deno.connect(server.address), input);
      assert.deepEqual(statuses.filter((status) => status >= 500), []);
      assert.deepEqual(await exchange(await Deno.connect(server.address), utf8(LAST)), [200]);
    },
    close: () => server.close(),
  };
}

/** Never an internal error; a command runs only for a POST with an object. */
async function controlSocket(): Promise<Target> {
  const folder = await Deno.makeTempDir({ prefix: "qpq-fuzz-" });
  let inputs: unknown[] = [];
  const control = await startControlServer(folder, {
    echo: async (input) => {
      inputs.push(input);
      return null;
    },
  });
  const path = join(folder, "control.sock");
  return {
    name: "http_control",
    generate: (random) =>
      concat(utf8(random.oneIn(3) ? "POST /echo HTTP/1.1\r\n" : ""), randomRequest(random)),
    async run(input) {
      inputs = [];
      const statuses = await exchange(await Deno.connect({ transport: "unix", path }), input);
      assert.deepEqual(statuses.filter((status) => status >= 500), []);
      for (const given of inputs) {
        assert.ok(typeof given === "object" && given !== null && !Array.isArray(given));
      }
      if (!new TextDecoder().decode(input).includes("POST")) assert.equal(inputs.length, 0);
      const last = await exchange(await Deno.connect({ transport: "unix", path }), utf8(LAST));
      assert.deepEqual(last, [405]);
    },
    async close() {
      await control[Symbol.asyncDispose]();
      await Deno.remove(folder, { recursive: true });
    },
  };
}

/** All of them, listening. */
export async function httpTargets(): Promise<Target[]> {
  const metrics = await metricsListener();
  return Deno.build.os === "windows" ? [metrics] : [metrics, await controlSocket()];
}
