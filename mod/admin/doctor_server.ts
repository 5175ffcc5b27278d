/** The running server: its control socket, its health, how clients reach it; and the configuration it was given. */
import { join } from "node:path";
import { exists } from "../base/files.ts";
import { CONTROL_SOCKET } from "./control.ts";
import { type DoctorCheck, type DoctorContext, fail, ok, warn } from "./doctor_check.ts";

/** With fewer connections a share says nothing. */
const CONNECTIONS_MIN = 20;
const SHARE_MAX = 0.9;
const CONNECTIONS_SHARE_MAX = 0.9;

/** What the operator has configured. */
export async function configurationGroup(
  { admin, configuration, settings }: DoctorContext,
): Promise<DoctorCheck[]> {
  const name = "configuration";
  const reload = await admin.server?.configurationProblems() ?? [];
  const problems = admin.server ? reload : configuration.problems;
  const remedy = admin.server
    ? "Correct it, then `qpq-server reload`: until then the server goes on with the old one"
    : "Correct it: the server does not start";
  const checks = [
    problems.length > 0 ? fail(name, problems.join("; "), remedy) : ok(name, "it can be used"),
  ];
  if (configuration.warnings.length > 0) {
    checks.push(
      warn("configuration's warnings", configuration.warnings.join("; "), "Correct what they tell of"),
    );
  }
  checks.push(
    settings.production ? ok("production mode", "on") : warn(
      "production mode",
      "off",
      "Set production = true (QPQ_PRODUCTION): insecure settings are refused then",
    ),
  );
  return checks;
}

/** The server's process. */
export async function serverGroup(context: DoctorContext): Promise<DoctorCheck[]> {
  const { server } = context.admin;
  if (!server) return await stoppedChecks(context);
  const unwell = (await server.health()).filter(({ ok, reason }) => !ok || reason !== undefined);
  const failing = unwell.filter(({ ok }) => !ok);
  return [
    ok("server", "it runs and answers on its control socket"),
    failing.length === 0
      ? ok(
        "health",
        unwell.length === 0 ? "ready" : `ready; ${unwell.map(({ reason }) => reason).join("; ")}`,
      )
      : fail(
        "health",
        failing.map(({ name, reason }) => `${name}: ${reason ?? "not well"}`).join("; "),
        "ops/incident-response.md: the section on what is named here",
      ),
    ...addressChecks(context),
  ];
}

async function stoppedChecks({ settings }: DoctorContext): Promise<DoctorCheck[]> {
  const path = join(settings.dataDir, CONTROL_SOCKET);
  if (!await exists(path)) return [ok("server", "it does not run")];
  return [
    warn(
      "server",
      `it does not run, and left ${path}: it was killed, or the machine went down`,
      "Start it: the next start replaces the file and loses nothing",
    ),
  ];
}

/** Behind a container's NAT all clients share an address, and its limits. */
function addressChecks({ admin, settings }: DoctorContext): DoctorCheck[] {
  const { connections, connectionsFromOneAddress } = admin.server!.vitals();
  const { connectionsMax, sharedAddresses } = settings.limits;
  const checks = [
    connections < CONNECTIONS_SHARE_MAX * connectionsMax
      ? ok("connections", `${connections} of ${connectionsMax}`)
      : warn(
        "connections",
        `${connections} of ${connectionsMax}: the next are refused`,
        "Raise limits.connections_max; ops/scaling-guide.md has the memory that each takes",
      ),
  ];
  if (sharedAddresses || connections < CONNECTIONS_MIN) return checks;
  const share = connectionsFromOneAddress / connections;
  const percent = Math.round(share * 100);
  return [
    ...checks,
    share < SHARE_MAX
      ? ok("client addresses", `at most ${percent} % of the connections come from one`)
      : warn(
        "client addresses",
        `${percent} % of the connections come from one: a NAT or proxy stands before the server`,
        "Use host networking, or set limits.shared_addresses: the limits for each address hit everybody together",
      ),
  ];
}
