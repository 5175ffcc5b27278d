/**
 * The access token's files and its rotation. `secrets/auth-token` has a token a line: the first is wanted, the others
 * are still accepted. Until when is in `auth-token.ends.json` beside it, by the SHA-256 of each token, so that the
 * ends survive a restart and never fall on another line. The first line never ends, whatever is written there: a
 * crash between the two files changes nothing. Clients that are logged in are not concerned by any of it.
 */
import { readTextIfThere } from "../base/files.ts";
import { base64url, hex, randomBytes, sha256, utf8 } from "../base/bytes.ts";
import { KeyedMutex } from "../base/keyed_mutex.ts";
import type { AccessToken } from "../auth/tokens.ts";
import { managedSecretPath } from "../config/load.ts";
import { optionOf, type Secret, type Settings } from "../config/options.ts";
import { Refusal, showDuration } from "../config/values.ts";
import { type AdminContext, AdminError, type JsonObject, type Operation } from "./operations.ts";
import { InputReader } from "./operations_input.ts";
import { finishRotation } from "./rotate_history.ts";
import { rotationAnswer } from "./rotate_plan.ts";
import { writeSecretFile } from "./secret_file.ts";

/** How long the old token is accepted when nobody says otherwise, and the longest that may be asked for. */
export const OVERLAP_MS_DEFAULT = 86_400_000;
export const OVERLAP_MS_MAX = 90 * 86_400_000;

/** Rotation and the end of an overlap both write the files. */
const FILES = new KeyedMutex();

/** Ends of tokens by SHA-256 in hex, Unix ms. */
type Ends = Readonly<Record<string, number>>;

/** The tokens that `settings` admit, with their ends; empty when the server runs without. */
export async function acceptedTokens(
  settings: Pick<Settings, "authToken" | "dataDir">,
): Promise<AccessToken[]> {
  const { authToken, dataDir } = settings;
  if (!authToken) return [];
  return await withEnds(authToken.lines, authToken.from === "managed" ? await readEnds(dataDir) : {});
}

/** Takes tokens whose end has come out of the managed file; `onDropped` gets those that are left. */
export async function dropEndedTokens(
  { authToken, dataDir }: Pick<Settings, "authToken" | "dataDir">,
  options: { now: number; onDropped: (left: readonly AccessToken[]) => Promise<void> },
): Promise<void> {
  if (authToken?.from !== "managed") return;
  const path = managedSecretPath(dataDir, "auth_token");
  await FILES.run(path, async () => {
    const tokens = await withEnds(await readLines(path), await readEnds(dataDir));
    const left = tokens.filter(({ until }) => until === null || until > options.now);
    if (left.length === tokens.length) return;
    await writeTokens(dataDir, left);
    await writeEnds(dataDir, left);
    await options.onDropped(left);
  });
}

/** `rotate auth-token`: a new token; the old one is accepted for the overlap. */
export const rotateAuthToken: Operation = {
  name: "rotate auth-token",
  whenStopped: "changes",
  audited: true,
  alone: "rotation",
  async run(context, input) {
    const read = new InputReader(input);
    const dryRun = read.flag("dryRun");
    const overlapMs = read.number("overlapMs", {
      min: 0,
      max: OVERLAP_MS_MAX,
      otherwise: OVERLAP_MS_DEFAULT,
    });
    read.end();
    const { authToken, allowNoAuthToken } = context.settings;
    if (allowNoAuthToken && !authToken) {
      throw new AdminError(
        "The server runs without an access token (allow_no_auth_token): there is none to rotate",
      );
    }
    if (!authToken) {
      throw new AdminError(
        "There is no access token yet: start the server or run 'qpq-server init', which makes one",
      );
    }
    if (authToken.from === "managed") {
      const path = managedSecretPath(context.settings.dataDir, "auth_token");
      return await FILES.run(path, () => rotateManaged(context, { dryRun, overlapMs }));
    }
    return await rotateForeign(context, authToken, dryRun);
  },
};

async function rotateManaged(
  context: AdminContext,
  { dryRun, overlapMs }: { dryRun: boolean; overlapMs: number },
): Promise<JsonObject> {
  const { dataDir } = context.settings;
  const path = managedSecretPath(dataDir, "auth_token");
  const now = context.clock.now();
  const old = await withEnds(await readLines(path), await readEnds(dataDir));
  const kept = overlapMs === 0 ? [] : old
    .filter(({ until }) => until === null || until > now)
    .map(({ token, until }) => ({ token, until: Math.min(until ?? Infinity, now + overlapMs) }));
  const dropped = old.length - kept.length;
  const notes = [
    ...await modeNotes(path),
    `Give the new token to whoever may register: it is the first line of ${path}`,
    "Clients that are logged in need nothing",
  ];
  const steps = [
    `${path}: a new first line; mode 0600`,
    ...(kept.length > 0
      ? [`the old token is accepted until ${new Date(now + overlapMs).toISOString()}`]
      : []),
    ...(dropped > 0
      ? [`${dropped} older ${dropped === 1 ? "token is" : "tokens are"} accepted no more`]
      : []),
    context.server ? "the running server accepts it at once" : "it counts from the next start",
  ];
  const more = { path, overlapMs, accepted: kept.length + 1, oldUntilAt: kept[0]?.until ?? null };
  if (dryRun) {
    return rotationAnswer({ key: "auth-token", dryRun, changes: true, version: null, steps, notes, more });
  }
  const tokens: AccessToken[] = [{ token: base64url(randomBytes(32)), until: null }, ...kept];
  context.server?.hideSecret(tokens[0]!.token);
  await writeEnds(dataDir, tokens);
  await context.step("wrote the ends");
  await writeTokens(dataDir, tokens);
  await context.step("wrote the tokens");
  await context.server?.replaceTokens(tokens);
  const how = overlapMs === 0 ? "without overlap" : `the old one is accepted for ${showDuration(overlapMs)}`;
  const version = await finishRotation(context, "auth-token", how);
  await context.step("wrote the history");
  return rotationAnswer({ key: "auth-token", dryRun, changes: true, version, steps, notes, more });
}

/** The operator's own file, variable or configuration: says which line to add, and takes it up where it was added. */
async function rotateForeign(context: AdminContext, secret: Secret, dryRun: boolean): Promise<JsonObject> {
  const base = { key: "auth-token", dryRun } as const;
  const path = secret.from === "file" ? secret.path : null;
  const lines = path === null ? secret.lines : await readLines(path);
  const changed = lines.join("\n") !== secret.lines.join("\n");
  if (path !== null && changed && context.server) {
    const steps = [`take up ${path} as it is now: ${lines.length} accepted, the first is wanted`];
    if (dryRun) return rotationAnswer({ ...base, changes: true, version: null, steps, notes: [] });
    await context.server.reload();
    const version = await finishRotation(context, "auth-token", `taken up from ${path}`);
    return rotationAnswer({
      ...base,
      changes: true,
      version,
      steps,
      notes: ["Clients that are logged in need nothing"],
    });
  }
  const line = base64url(randomBytes(32));
  return rotationAnswer({
    ...base,
    changes: false,
    version: null,
    steps: [],
    notes: adviceFor(secret),
    more: { line },
  });
}

function adviceFor(secret: Secret): string[] {
  const overlap =
    "keep the old token as a second line until everybody has the new one, or drop it after a leak";
  switch (secret.from) {
    case "file":
      return [
        `The token is in ${secret.path}, which is yours: write the line below above the others; ${overlap}`,
        "Then run this command again, or `qpq-server reload`: it works at once, without a restart",
      ];
    case "configuration":
      return [
        `The token is in the configuration file: set auth_token to the line below; ${overlap} (lines in one text)`,
        "Then run `qpq-server reload`",
      ];
    default:
      return [
        `The token comes from ${
          secret.from === "flag" ? "a flag" : "the environment (QPQ_AUTH_TOKEN)"
        }: set it to the line below; ${overlap}`,
        "Then restart the server: environment and flags never change while it runs",
      ];
  }
}

async function readLines(path: string): Promise<string[]> {
  const text = await readTextIfThere(path);
  if (text === null) {
    throw new AdminError(`There is no file ${path}: put it back, or run 'qpq-server init' to make one`);
  }
  const lines = optionOf("auth_token").read(text);
  if (lines instanceof Refusal) {
    throw new AdminError(
      `The file ${path} ${lines.text}: write the token into it, or remove it and start the server, which makes one`,
    );
  }
  return lines as string[];
}

async function modeNotes(path: string): Promise<string[]> {
  const { mode } = await Deno.stat(path);
  if (Deno.build.os === "windows" || mode === null || (mode & 0o077) === 0) return [];
  const shown = (mode & 0o777).toString(8).padStart(4, "0");
  return [`Others could read ${path} (mode ${shown}): if they did, rotate again with --overlap 0`];
}

async function withEnds(lines: readonly string[], ends: Ends): Promise<AccessToken[]> {
  return await Promise.all(lines.map(async (token, index) => {
    const until = index === 0 ? null : ends[await digest(token)] ?? null;
    return { token, until };
  }));
}

async function digest(token: string): Promise<string> {
  return hex(await sha256(utf8(token)));
}

function endsPath(dataDir: string): string {
  return `${managedSecretPath(dataDir, "auth_token")}.ends.json`;
}

/** A damaged file is refused: a token that was to end must not live on unseen. */
async function readEnds(dataDir: string): Promise<Ends> {
  const path = endsPath(dataDir);
  const text = await readTextIfThere(path);
  if (text === null) return {};
  try {
    const { format, ends } = JSON.parse(text);
    if (format === 1 && typeof ends === "object" && ends !== null) return ends;
  } catch {
    // Told below, like a file that is JSON and something else.
  }
  throw new AdminError(
    `${path} is damaged: leave only the wanted token in ${
      managedSecretPath(dataDir, "auth_token")
    }, then remove it`,
  );
}

async function writeEnds(dataDir: string, tokens: readonly AccessToken[]): Promise<void> {
  const ends: Record<string, number> = {};
  for (const { token, until } of tokens) if (until !== null) ends[await digest(token)] = until;
  await writeSecretFile(endsPath(dataDir), JSON.stringify({ format: 1, ends }, null, 2) + "\n");
}

async function writeTokens(dataDir: string, tokens: readonly AccessToken[]): Promise<void> {
  await writeSecretFile(
    managedSecretPath(dataDir, "auth_token"),
    tokens.map(({ token }) => `${token}\n`).join(""),
  );
}
