/** `qpq-server rotate …`: every key of the server, while it runs or is stopped. */
import { type Command, Option } from "commander";
import type { JsonObject } from "../admin/control.ts";
import { OVERLAP_MS_MAX, rotateAuthToken } from "../admin/rotate_auth_token.ts";
import { rotateDbKey } from "../admin/rotate_db_key.ts";
import { rotateFederation } from "../admin/rotate_federation.ts";
import { rotateOpaque } from "../admin/rotate_opaque.ts";
import { rotateStatus } from "../admin/rotate_status.ts";
import { rotateTls } from "../admin/rotate_tls.ts";
import { messageOf } from "../base/errors.ts";
import { readDuration, Refusal } from "../config/values.ts";
import { adminCommand, type Flags } from "./admin_command.ts";
import { confirmed, destructive } from "./confirm.ts";
import { countOf, describeRows } from "./admin_output.ts";
import { type Terminal, UsageError } from "./terminal.ts";
import { wholeNumber } from "./whole_number.ts";

/** Adds the commands to `program`. */
export function addRotate(program: Command, terminal: Terminal): void {
  const rotate = program.command("rotate").description("change the server's keys; clients stay connected");
  adminCommand(rotate, {
    words: "status",
    description: "show of each key its version, its age and what is pending",
    operation: rotateStatus,
    show: ({ keys }) => describeRows(keys as JsonObject),
  }, terminal);
  addAuthToken(rotate, terminal);
  addTls(rotate, terminal);
  addFederation(rotate, terminal);
  addDbKey(rotate, terminal);
  addOpaque(rotate, terminal);
}

function addAuthToken(rotate: Command, terminal: Terminal): void {
  adminCommand(rotate, {
    words: "auth-token",
    description: "make a new access token; the old one is accepted for an overlap",
    operation: rotateAuthToken,
    declare: (command) =>
      dryRun(command).option(
        "--overlap <duration>",
        "how long the old one is accepted; 0 after a leak",
        "24h",
      ),
    input: (flags) => ({
      dryRun: flags["dryRun"] === true,
      overlapMs: durationOf(flags, "overlap", OVERLAP_MS_MAX),
    }),
    show: showRotation,
    help: "Example: qpq-server rotate auth-token --overlap 0",
  }, terminal);
}

function addTls(rotate: Command, terminal: Terminal): void {
  adminCommand(rotate, {
    words: "tls",
    description: "renew the certificate (announced to clients for a week), or import one",
    operation: rotateTls,
    declare: (command) =>
      dryRun(command)
        .option("--cert <file>", "certificate chain to import (PEM, leaf first); with --key")
        .option("--key <file>", "private key of it (PEM)")
        .addOption(
          new Option("--renew", "make a new one even if one is announced").conflicts(["cert", "key"]),
        )
        .option("--now", "put the new one in place at once, instead of announcing it for a week"),
    input: async (flags) => ({
      dryRun: flags["dryRun"] === true,
      renew: flags["renew"] === true,
      now: flags["now"] === true,
      ...await filesOf(flags, { cert: "certificatePem", key: "privateKeyPem" }),
    }),
    show: showRotation,
    help:
      "Examples:\n  qpq-server rotate tls --renew --now\n  qpq-server rotate tls --cert fullchain.pem --key privkey.pem",
  }, terminal);
}

function addFederation(rotate: Command, terminal: Terminal): void {
  adminCommand(rotate, {
    words: "federation",
    description: "replace the certificate, key and CA set for other servers, together",
    operation: rotateFederation,
    declare: (command) =>
      dryRun(command)
        .requiredOption("--cert <file>", "certificate chain (PEM, leaf first)")
        .requiredOption("--key <file>", "private key of it (PEM)")
        .requiredOption("--ca <file>", "CAs of the servers to trust (PEM)")
        .option("--crl <file>", "revocation lists of those CAs (PEM); none drops the former ones"),
    input: async (flags) => ({
      dryRun: flags["dryRun"] === true,
      ...await filesOf(flags, { cert: "certificatePem", key: "privateKeyPem", ca: "caPem" }),
      ...await crlOf(flags["crl"]),
    }),
    show: showRotation,
  }, terminal);
}

function addDbKey(rotate: Command, terminal: Terminal): void {
  adminCommand(rotate, {
    words: "db-key",
    description: "encrypt the database anew under another key; writes wait meanwhile",
    operation: rotateDbKey,
    declare: (command) =>
      dryRun(command)
        .option("--key-file <file>", "the new key (64 hex digits, or a long passphrase); random by default")
        .option("--forget-old", "do not keep the old key for older backups: after a leak"),
    input: async (flags) => ({
      dryRun: flags["dryRun"] === true,
      forgetOld: flags["forgetOld"] === true,
      ...(flags["keyFile"] === undefined
        ? {}
        : { key: (await readText(String(flags["keyFile"]), "key-file")).trim() }),
    }),
    show: showRotation,
    help: "Example: qpq-server rotate db-key --dry-run",
  }, terminal);
}

function addOpaque(rotate: Command, terminal: Terminal): void {
  adminCommand(rotate, {
    words: "opaque",
    description: "make a new OPAQUE setup, to which accounts move as they log in; or retire an old one",
    operation: rotateOpaque,
    declare: (command) =>
      destructive(command)
        .option("--new-seed", "with a new OPRF seed: after a leak of the database and its key")
        .option("--suite <name>", "ristretto255 or p256: of which OPAQUE suite (default: ristretto255)")
        .option("--retire <setup>", "end an old setup; refused while accounts need it")
        .option("--force", "retire it all the same: those accounts need `user reset`"),
    input: (flags) => ({
      dryRun: flags["dryRun"] === true,
      newSeed: flags["newSeed"] === true,
      force: flags["force"] === true,
      ...(flags["suite"] === undefined ? {} : { suite: flags["suite"] as string }),
      ...(flags["retire"] === undefined ? {} : { retire: wholeNumber(flags, "retire") }),
    }),
    reach: confirmed(rotateOpaque, ({ lockedOutCount }) => {
      const count = Number(lockedOutCount ?? 0);
      return count === 0 ? null : `${countOf(count, "account")} will not be able to log in any more.`;
    }),
    show: showRotation,
    help: "Examples:\n  qpq-server rotate opaque\n  qpq-server rotate opaque --retire 1",
  }, terminal);
}

/** Adds `--dry-run`. */
export function dryRun(command: Command): Command {
  return command.option("--dry-run", "say what would happen, and change nothing");
}

/** What a rotation answered, for people. */
export function showRotation(result: JsonObject): string {
  const { key, dryRun, changes, version, steps, notes, line } = result;
  const list = (items: unknown, mark: string) =>
    (items as string[]).map((item) => `${mark} ${item}\n`).join("");
  const title = !changes
    ? `${key}: nothing to change`
    : dryRun
    ? `${key}: this would happen (nothing was changed)`
    : `${key}: ${version === null ? "done" : `done, now version ${version}`}`;
  return `${title}\n${list(steps, " -")}${line === undefined ? "" : `\n  ${line}\n\n`}${list(notes, " *")}`;
}

/** Files are read here: the server's user need not be able to. */
async function filesOf(
  flags: Flags,
  names: Readonly<Record<string, string>>,
): Promise<JsonObject> {
  const given = Object.keys(names).filter((flag) => flags[flag] !== undefined);
  if (given.length > 0 && given.length < Object.keys(names).length) {
    throw new UsageError(`${Object.keys(names).map((name) => `--${name}`).join(", ")} belong together`);
  }
  const texts = given.map(async (flag) => [names[flag]!, await readText(String(flags[flag]), flag)]);
  return Object.fromEntries(await Promise.all(texts));
}

/** Without the flag the former lists stay. */
async function crlOf(flag: unknown): Promise<JsonObject> {
  if (flag === undefined) return {};
  return { crlPem: flag === "none" ? "none" : await readText(String(flag), "crl") };
}

async function readText(path: string, flag: string): Promise<string> {
  try {
    return await Deno.readTextFile(path);
  } catch (cause) {
    throw new UsageError(`--${flag}: cannot read ${path}: ${messageOf(cause)}`);
  }
}

/** Milliseconds of a flag like `24h`. */
function durationOf(flags: Flags, name: string, max: number): number {
  const value = readDuration(0, max)(flags[name]);
  if (value instanceof Refusal) throw new UsageError(`--${name} ${value.text}`);
  return value;
}
