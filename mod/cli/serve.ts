/** `qpq-server serve`: runs the server until SIGINT or SIGTERM. */
import type { Command } from "commander";
import { chooseLogFormat, configureLogs, logger } from "../base/log.ts";
import { diskFile } from "../config/disk_file.ts";
import { load, type Loaded, managedSecretPath, problemLine } from "../config/load.ts";
import type { Settings } from "../config/options.ts";
import { type RunningServer, startServer } from "../server/start.ts";
import { addOptionFlags, optionFlags } from "./option_flags.ts";
import { shellWord } from "./shell_word.ts";
import type { Terminal } from "./terminal.ts";

const log = logger("server");

/** Adds the command to `program`. */
export function addServe(program: Command, terminal: Terminal): void {
  const command = program.command("serve", { isDefault: true })
    .description("run the server (the default)")
    .option("--resume-expiry", "the clock was checked: go on deleting what has expired");
  addOptionFlags(command);
  command.action((flags: Record<string, string | boolean>) => serve(flags, terminal));
}

async function serve(flags: Record<string, string | boolean>, terminal: Terminal): Promise<void> {
  const loadAgain = () => load({ env: terminal.env, flags: optionFlags(flags), readFile: diskFile });
  const loaded = loadAgain();
  const { settings } = loaded;
  const format = chooseLogFormat(settings.logFormat, {
    terminal: terminal.errorIsTerminal,
    production: settings.production,
  });
  configureLogs({ filter: settings.log, format });
  for (const warning of loaded.warnings) log.warn(problemLine(warning));
  // Listened to before the start: a signal that comes during it stops the server as soon as it runs.
  const interrupted = new Promise<void>((resolve) =>
    terminal.onInterrupt((signal) => {
      log.info("shutdown signal received", { signal });
      resolve();
    })
  );
  // A SIGHUP during the start must not end it; the configuration was read a moment ago.
  let reload = () => {};
  terminal.onHangup(() => reload());
  const server = await startServer(settings, {
    resumeExpiry: flags["resumeExpiry"] === true,
    load: loadAgain,
  });
  reload = () => {
    server.admin.reload().catch(() => {}); // it has logged why
  };
  catchUnhandled(server);
  tellHowToTry(server, loaded, terminal);
  await interrupted;
  await server.stop();
}

/** A promise that nobody awaited must not end the server; it is a bug all the same. */
function catchUnhandled(server: RunningServer): void {
  globalThis.addEventListener("unhandledrejection", (event) => {
    event.preventDefault();
    server.context.metrics.unhandledRejectionsTotal.inc();
    log.error("unhandled rejection", { error: event.reason });
  });
}

/**
 * A first start says how to try it; on a terminal every start does, as the first may have been cut short. In production
 * it is in the log, where each line is an object of JSON.
 */
function tellHowToTry(server: RunningServer, { settings }: Loaded, terminal: Terminal): void {
  if (server.made.length === 0 && !terminal.outIsTerminal) return;
  const { port, hostname } = server.address;
  const { fingerprint } = server;
  const ca = settings.tlsCert === null ? ` --ca ${shellWord(`${settings.dataDir}/tls/ca.pem`)}` : "";
  const commandTo = (host: string) =>
    `${terminal.invocation.client} --server ${host}:${port}${ca}${tokenFlag(settings)} --ping`;
  if (settings.production && !terminal.outIsTerminal) {
    const command = commandTo(settings.tlsNames?.[0] ?? "localhost"); // a log shows no whole address
    log.info("first start; to try it: {command}", { command, fingerprint });
    return;
  }
  const host = hostname === "0.0.0.0" ? "127.0.0.1" : hostname === "::" ? "[::1]" : hostname;
  const metrics = server.metricsAddress;
  terminal.hint(
    `\nThe server is running. Its certificate's fingerprint is\n  ${fingerprint}\n` +
      (metrics ? `Metrics and health are at\n  http://${metrics.hostname}:${metrics.port}/metrics\n` : "") +
      `Try it from another terminal:\n  ${commandTo(host)}\n\n`,
  );
}

/** The flag that shows the token, never the token itself. */
function tokenFlag({ authToken, allowNoAuthToken, dataDir }: Settings): string {
  if (authToken) {
    return authToken.path ? ` --auth-token-file ${shellWord(authToken.path)}` : ' --auth-token "$TOKEN"';
  }
  return allowNoAuthToken ? "" : ` --auth-token-file ${shellWord(managedSecretPath(dataDir, "auth_token"))}`;
}
