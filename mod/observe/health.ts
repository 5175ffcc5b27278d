/**
 * Metrics and health over HTTP: /metrics, /healthz (the process lives), /readyz (it can serve, with reasons), and
 * the status page at /. No login, no secrets, nothing that changes anything: for the operator's network. Readiness is asked at each request and
 * scrape, under a timeout.
 */
import type { NetAddress } from "../base/address.ts";
import { type Clock, systemClock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import { GUARD_HEADERS, refuseForeign } from "../base/http_guard.ts";
import { logger } from "../base/log.ts";
import type { Metrics } from "./metrics.ts";
import { STATUS_PATHS, StatusPage } from "./status_page.ts";

const log = logger("health");

/** How long the checks of one /readyz may take. */
const CHECKS_TIMEOUT_MS = 5_000;
/** Requests being answered; more are told to come back. */
const REQUESTS_MAX = 32;

/** One thing that must be so before clients are sent here. */
export interface Check {
  readonly name: string;
  readonly ok: boolean;
  /** In words, when it is not so; readers are operators, but nothing secret. */
  readonly reason?: string;
}

/** What the server needs. */
export interface HealthOptions {
  /** Port 0: any free one. */
  readonly listen: NetAddress;
  /** Names with a dot that requests may call this listener by. */
  readonly names?: readonly string[];
  readonly metrics: Metrics;
  readonly checks: () => Promise<readonly Check[]>;
  readonly clock?: Clock;
}

/** The running server. */
export interface HealthServer extends AsyncDisposable {
  /** Where it listens, with the real port. */
  readonly address: NetAddress;
  /** Stops it; requests being answered are finished. Idempotent. */
  close(): Promise<void>;
}

function reply(status: number, type: string, body: string, more: Record<string, string> = {}): Response {
  return new Response(body, { status, headers: { ...GUARD_HEADERS, ...more, "content-type": type } });
}

const TEXT = "text/plain; charset=utf-8";

/** Starts the HTTP server. Throws when the address cannot be had. */
export function startHealthServer(options: HealthOptions): HealthServer {
  const { metrics } = options;
  const slots = { free: REQUESTS_MAX };
  const page = new StatusPage({
    metrics,
    clock: options.clock ?? systemClock,
    readiness: () => readiness(options),
  });
  const server = Deno.serve({
    hostname: options.listen.hostname,
    port: options.listen.port,
    onListen: () => {},
    onError: (error) => {
      log.error("A health request failed", { error });
      return reply(500, TEXT, "internal error\n");
    },
  }, (request) => answer(request, { ...options, slots, page }));
  const address = { hostname: server.addr.hostname, port: server.addr.port };
  log.info("Serving metrics and health on {listen}", { listen: `${address.hostname}:${address.port}` });
  metrics.ready.set(0);
  page.start();
  const close = async () => {
    await server.shutdown();
    await page.stop();
  };
  return { address, close, [Symbol.asyncDispose]: close };
}

/** What a route needs: the options, and how many more requests may run. */
type Context = HealthOptions & { readonly slots: { free: number }; readonly page: StatusPage };

async function answer(request: Request, context: Context): Promise<Response> {
  const refusal = refuseForeign(request, context.names ?? []);
  if (refusal) return reply(refusal.status, TEXT, `${refusal.text}; see the option metrics_names\n`);
  const url = new URL(request.url);
  const route = STATUS_PATHS.has(url.pathname) ? statusRoute : routes[url.pathname];
  if (!route) return reply(404, TEXT, "not found; there are /, /metrics, /healthz and /readyz\n");
  if (request.method !== "GET" && request.method !== "HEAD") {
    return reply(405, TEXT, "only GET and HEAD\n", { allow: "GET, HEAD" });
  }
  const response = await route(context, url);
  if (request.method === "GET") return response;
  await response.body?.cancel();
  return new Response(null, response);
}

/** Runs `work` if there is a free slot. /healthz needs none: a busy server must not be taken for a dead one. */
async function bounded(context: Context, work: () => Promise<Response>): Promise<Response> {
  if (context.slots.free === 0) return reply(503, TEXT, "too many requests\n", { "retry-after": "1" });
  context.slots.free--;
  try {
    return await work();
  } finally {
    context.slots.free++;
  }
}

function statusRoute(context: Context, url: URL): Promise<Response> {
  return bounded(context, async () => {
    const { type, body, headers } = await context.page.answer(url);
    return reply(200, type, body, headers);
  });
}

const routes: Record<string, (context: Context) => Promise<Response>> = {
  "/healthz": async () => reply(200, TEXT, "ok\n"),
  "/metrics": (context) =>
    bounded(context, async () => {
      // At the same time: a store that hangs must not use up the time that a scrape has twice over.
      await Promise.all([readiness(context), context.metrics.refresh()]);
      const { contentType, body } = await context.metrics.render();
      return reply(200, contentType, body);
    }),
  "/readyz": (context) =>
    bounded(context, async () => {
      const { ready, checks } = await readiness(context);
      return reply(ready ? 200 : 503, "application/json", JSON.stringify({ ready, checks }) + "\n");
    }),
};

/** Runs the checks, at most CHECKS_TIMEOUT_MS long; whatever they throw is a check that failed. */
export async function readiness(
  options: Pick<HealthOptions, "checks" | "metrics" | "clock">,
): Promise<{ ready: boolean; checks: readonly Check[] }> {
  const clock = options.clock ?? systemClock;
  let cancel: (() => void) | undefined;
  const timeout = new Promise<readonly Check[]>((resolve) => {
    const reason = `No answer within ${CHECKS_TIMEOUT_MS / 1000} s`;
    cancel = clock.after(CHECKS_TIMEOUT_MS, () => resolve([{ name: "checks", ok: false, reason }]));
  });
  const run = async (): Promise<readonly Check[]> => {
    try {
      return await options.checks();
    } catch (error) {
      log.error("A readiness check failed", { error });
      return [{ name: "checks", ok: false, reason: messageOf(error) }];
    }
  };
  const checks = await Promise.race([run(), timeout]);
  cancel?.();
  const ready = checks.every((check) => check.ok);
  options.metrics.ready.set(ready ? 1 : 0);
  return { ready, checks };
}
