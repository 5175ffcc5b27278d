/**
 * The state key: 32 random bytes in `key` (mode 0600), as they are or wrapped under a passphrase. JSON:
 *
 *   {"format":"qpq-client-key","version":1,"key":hex}
 *   {"format":"qpq-client-key","version":1,"scrypt":{"logN":16,"r":8,"p":1},"salt":hex,"nonce":hex,"wrapped":hex}
 */
import { scrypt } from "node:crypto";
import { xchacha20poly1305 } from "@noble/ciphers/chacha.js";
import { type Bytes, fromHex, hex, randomBytes, utf8 } from "../base/bytes.ts";
import { readTextIfThere, writeFileAtomic } from "../base/files.ts";
import { checkPermissions, StateError } from "./state_error.ts";

/** A passphrase, or how to ask for one; asked only when the key is wrapped. */
export type Passphrase = string | (() => Promise<string>);

const FORMAT = "qpq-client-key";
const VERSION = 1;
const KEY_BYTES = 32;
/** 64 MiB and about a quarter of a second for each guess. */
const SCRYPT = { logN: 16, r: 8, p: 1 } as const;
const SCRYPT_LOG_N_MAX = 20;
const CONTEXT = utf8("qpq/1 client state key");

interface KeyFile {
  format: string;
  version: number;
  key?: string;
  scrypt?: { logN: number; r: number; p: number };
  salt?: string;
  nonce?: string;
  wrapped?: string;
}

function stretch(
  passphrase: string,
  salt: Uint8Array,
  cost: { logN: number; r: number; p: number },
): Promise<Bytes> {
  const { logN, r, p } = cost;
  const N = 2 ** logN;
  const { promise, resolve, reject } = Promise.withResolvers<Bytes>();
  scrypt(
    utf8(passphrase.normalize("NFKC")),
    salt,
    KEY_BYTES,
    { N, r, p, maxmem: 256 * N * r },
    (error, key) => {
      if (error) reject(error);
      else resolve(new Uint8Array(key));
    },
  );
  return promise;
}

/** Makes the key file; its folder is there. */
export async function createStateKey(path: string, passphrase?: Passphrase): Promise<Bytes> {
  const key = randomBytes(KEY_BYTES);
  await writeStateKey(path, key, passphrase);
  return key;
}

/** Writes the key, wrapped when there is a passphrase. Replaces the file at once or not at all. */
export async function writeStateKey(path: string, key: Bytes, passphrase?: Passphrase): Promise<void> {
  const head = { format: FORMAT, version: VERSION };
  if (passphrase === undefined) {
    return await writeFileAtomic(path, JSON.stringify({ ...head, key: hex(key) }) + "\n", { mode: 0o600 });
  }
  const text = typeof passphrase === "string" ? passphrase : await passphrase();
  const salt = randomBytes(16);
  const nonce = randomBytes(24);
  const cipher = xchacha20poly1305(await stretch(text, salt, SCRYPT), nonce, CONTEXT);
  const file: KeyFile = {
    ...head,
    scrypt: SCRYPT,
    salt: hex(salt),
    nonce: hex(nonce),
    wrapped: hex(cipher.encrypt(key)),
  };
  await writeFileAtomic(path, JSON.stringify(file) + "\n", { mode: 0o600 });
}

/** Reads the key; null when there is no file. Throws StateError. */
export async function readStateKey(path: string, passphrase?: Passphrase): Promise<Bytes | null> {
  const json = await readTextIfThere(path);
  if (json === null) return null;
  await checkPermissions(path);
  const file = parse(path, json);
  if (file.version > VERSION) {
    throw new StateError(
      "newerVersion",
      `Cannot read ${path} as a newer version wrote it: update this program`,
    );
  }
  // Asked outside of what is judged below: giving up at the question does not mean that the file is damaged.
  const text = file.key === undefined ? await passphraseText(path, passphrase) : "";
  try {
    if (file.key !== undefined) return checkedKey(fromHex(file.key));
    return checkedKey(await unwrap(path, file, text));
  } catch (cause) {
    if (cause instanceof StateError) throw cause;
    throw damaged(path, cause);
  }
}

function damaged(path: string, cause?: unknown): StateError {
  return new StateError("damaged", `Cannot read ${path} as it is damaged: restore it from a copy`, { cause });
}

function checkedKey(key: Bytes): Bytes {
  if (key.length !== KEY_BYTES) throw new RangeError(`The key must have ${KEY_BYTES} bytes: ${key.length}`);
  return key;
}

function parse(path: string, text: string): KeyFile {
  let file: unknown;
  try {
    file = JSON.parse(text);
  } catch (cause) {
    throw damaged(path, cause);
  }
  const isKeyFile = (value: unknown): value is KeyFile =>
    typeof value === "object" && value !== null && "format" in value && value.format === FORMAT &&
    "version" in value && Number.isInteger(value.version);
  if (!isKeyFile(file)) throw damaged(path);
  return file;
}

async function passphraseText(path: string, passphrase: Passphrase | undefined): Promise<string> {
  if (passphrase === undefined) {
    throw new StateError("passphraseNeeded", `Cannot open ${path} without its passphrase`);
  }
  return typeof passphrase === "string" ? passphrase : await passphrase();
}

async function unwrap(path: string, file: KeyFile, text: string): Promise<Bytes> {
  const { scrypt: cost, salt, nonce, wrapped } = file;
  if (!cost || !salt || !nonce || !wrapped || !(cost.logN <= SCRYPT_LOG_N_MAX)) throw damaged(path);
  const cipher = xchacha20poly1305(await stretch(text, fromHex(salt), cost), fromHex(nonce), CONTEXT);
  try {
    return new Uint8Array(cipher.decrypt(fromHex(wrapped)));
  } catch (cause) {
    throw new StateError("wrongPassphrase", `Cannot open ${path} as the passphrase is wrong: try again`, {
      cause,
    });
  }
}
