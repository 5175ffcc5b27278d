/** Operations on the running server alone: reload, drain, log-level, health, expiry resume, limits top. */
import { AdminError, type JsonObject, type Operation } from "./operations.ts";
import { InputReader } from "./operations_input.ts";
import type { AdminContext } from "./operations.ts";
import type { LiveServer } from "./operations_live.ts";

/** Rows of `limits top` when nobody says. */
const TOP_DEFAULT = 10;

/** Reads the configuration again. */
export const reload = running("reload", { audited: true }, async (server, input) => {
  new InputReader(input).end();
  const { applied, restart, notes } = await server.reload();
  return { applied: [...applied], restart: [...restart], notes: [...notes] };
});

/** Accepts nothing new, without stopping; or again. */
export const drain = running("drain", { audited: true }, async (server, input) => {
  const read = new InputReader(input);
  const undo = read.flag("undo");
  read.end();
  server.drain(!undo);
  return { draining: !undo };
});

/** Changes the log filter until the next reload or start; shows it when none is given. */
export const logLevel = running("log-level", { audited: true }, async (server, input) => {
  const read = new InputReader(input);
  const filter = read.text("filter");
  read.end();
  const before = server.logFilter;
  const problems = filter === null ? [] : server.setLogFilter(filter);
  if (problems.length > 0) throw new AdminError(`The log filter stays ${before}: ${problems.join("; ")}`);
  return { log: server.logFilter, before };
});

/** Checks for what an operator wanted: they only count against `ready`. */
const WANTED = ["draining", "key change"];

/** Is the server well? */
export const health = running("health", { audited: false }, async (server, input) => {
  new InputReader(input).end();
  const checks = await server.health();
  return {
    healthy: checks.every(({ name, ok }) => ok || WANTED.includes(name)),
    ready: checks.every(({ ok }) => ok),
    checks: checks.map(({ name, ok, reason }) => ({ name, ok, ...(reason === undefined ? {} : { reason }) })),
  };
});

/** The operator has looked at the clock. */
export const resumeExpiry = running("expiry resume", { audited: true }, async (server, input) => {
  new InputReader(input).end();
  const because = server.expiryPausedBecause;
  server.resumeExpiry();
  return { wasPausedBecause: because };
});

/** Who uses the limits most, with full addresses. */
export const topLimits = running("limits top", { audited: false }, async (server, input) => {
  const read = new InputReader(input);
  const count = read.number("count", { min: 1, max: 1000, otherwise: TOP_DEFAULT });
  read.end();
  return { limits: server.topLimits(count).map((use) => ({ ...use })) };
});

function running(
  name: string,
  options: { audited: boolean },
  work: (server: LiveServer, input: JsonObject) => Promise<JsonObject>,
): Operation {
  const run = (context: AdminContext, input: JsonObject) => work(context.server!, input);
  return { name, whenStopped: "refused", ...options, run };
}
