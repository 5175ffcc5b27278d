/** From flags and environment: which server, who it must be, and what admits to it. */
import { join } from "node:path";
import { messageOf } from "../../base/errors.ts";
import { type IdentityChoice, parseServerAddress, type ServerAddress } from "../../client/identity.ts";
import { type Terminal, UsageError } from "../terminal.ts";
import { readTextFile } from "./files.ts";
import type { ClientFlags } from "./flags.ts";

/** The server that a flag names. */
export function chosenServer(flags: ClientFlags): ServerAddress | undefined {
  if (flags.server === undefined) return undefined;
  try {
    return parseServerAddress(flags.server);
  } catch (error) {
    throw new UsageError(`${messageOf(error)} (--server)`, { cause: error });
  }
}

/** The identity that a flag asks for. */
export async function chosenIdentity(flags: ClientFlags): Promise<IdentityChoice | undefined> {
  if (flags.ca !== undefined) return { ca: await readCa(flags.ca) };
  if (flags.fingerprint === undefined) return undefined;
  const fingerprint = fingerprintBytes(flags.fingerprint);
  if (!fingerprint) {
    throw new UsageError("--fingerprint takes 64 hex digits: the SHA-256 that the server prints");
  }
  return { fingerprint };
}

/** The access token from a flag, else from the environment. */
export async function accessToken(flags: ClientFlags, terminal: Terminal): Promise<string | undefined> {
  if (flags.authToken) return flags.authToken;
  if (flags.authTokenFile) return await readToken(flags.authTokenFile);
  if (terminal.env["QPQ_AUTH_TOKEN"]) return terminal.env["QPQ_AUTH_TOKEN"];
  const file = terminal.env["QPQ_AUTH_TOKEN_FILE"];
  return file ? await readToken(file) : undefined;
}

/**
 * The CA of a server whose data folder is on this machine, for a server on this machine that nothing else vouches
 * for. Whoever can write there is the server's operator, or could read everything anyway.
 */
export async function localCa(
  server: ServerAddress,
  terminal: Terminal,
): Promise<{ ca: string; path: string } | undefined> {
  if (!["127.0.0.1", "::1", "localhost"].includes(server.hostname)) return undefined;
  const path = join(terminal.env["QPQ_DATA_DIR"] || "data", "tls", "ca.pem");
  try {
    return { ca: await readCa(path), path };
  } catch {
    return undefined; // then the public roots have to vouch, and the refusal says what to give
  }
}

async function readCa(path: string): Promise<string> {
  const text = await readTextFile(path);
  if (!text.includes("-----BEGIN CERTIFICATE-----")) {
    throw new UsageError(`${path} holds no certificate (PEM)`);
  }
  return text;
}

/** A token file may hold older tokens below the first. */
async function readToken(path: string): Promise<string> {
  const token = (await readTextFile(path)).split(/\r?\n/).map((line) => line.trim()).find((line) =>
    line !== ""
  );
  if (!token) throw new UsageError(`${path} holds no access token`);
  return token;
}

/** As people paste it: colons, spaces and capitals do not matter. */
function fingerprintBytes(text: string): Uint8Array | null {
  const digits = text.trim().replace(/^sha-?256[:=]/i, "").replace(/[:\s]/g, "");
  return /^[0-9a-f]{64}$/i.test(digits) ? Uint8Array.fromHex(digits) : null;
}
