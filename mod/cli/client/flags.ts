/** The flags that every client command takes, before or after the command word. */
import { type Command, Option } from "commander";
import { join } from "node:path";
import type { Terminal } from "../terminal.ts";

/** As commander hands them out. */
export interface ClientFlags {
  readonly server?: string;
  readonly authToken?: string;
  readonly authTokenFile?: string;
  readonly ca?: string;
  readonly fingerprint?: string;
  readonly state?: string;
  readonly passwordFile?: string;
  readonly passphraseFile?: string;
  readonly json?: boolean;
  readonly log?: string;
  readonly ping?: boolean;
}

/** Adds them to the command that holds the client's commands. */
export function addClientFlags(command: Command, terminal: Terminal): void {
  command.optionsGroup("Flags of every command (before or after the command word):");
  const add = (flags: string, text: string, ...conflicts: string[]) =>
    command.addOption(new Option(flags, text).conflicts(conflicts));
  add("--server <host:port>", "server to use; remembered once it was reached (port 7000 if none is given)");
  add("--auth-token <token>", "the server's access token, to register or --ping; or QPQ_AUTH_TOKEN");
  add("--auth-token-file <file>", "file with the access token; or QPQ_AUTH_TOKEN_FILE", "authToken");
  add("--ca <file>", "CA certificate that the server must have (data/tls/ca.pem there); remembered");
  add("--fingerprint <sha256>", "certificate that the server must have; remembered", "ca");
  add("--state <folder>", `what this device keeps, encrypted (default: ${defaultStateFolder(terminal.env)})`);
  add("--password-file <file>", "file with the account's password; or QPQ_PASSWORD; else it is asked for");
  add("--passphrase-file <file>", "file with the passphrase of a locked state folder; or QPQ_PASSPHRASE");
  add("--json", "print results as JSON, one object a line");
  add("--log <directives>", "log to stderr, e.g. debug or info,qpq::client=trace; or QPQ_LOG");
}

/** Where the state is when nobody says otherwise: a place of the user's own. */
export function defaultStateFolder(env: Readonly<Record<string, string>>): string {
  if (Deno.build.os === "windows" && env["LOCALAPPDATA"]) return join(env["LOCALAPPDATA"], "qpq");
  if (env["XDG_STATE_HOME"]) return join(env["XDG_STATE_HOME"], "qpq");
  const home = env["HOME"] ?? env["USERPROFILE"];
  return home ? join(home, ".local", "state", "qpq") : "qpq-state";
}
