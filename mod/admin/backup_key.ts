/**
 * What a backup needs of the DB key, without ever holding it: a short public id, by which the right key is found
 * years later; a MAC over the manifest; names of encrypted blobs that tell nothing about their content. All of them
 * are derived with HKDF (RFC 5869) under the store's realm id. A passphrase is stretched first, by as much work as
 * SQLCipher does, so that an id or a MAC is no easier to guess against than the database itself.
 */
import { type Bytes, fromHex, hex, utf8 } from "../base/bytes.ts";
import type { BlobHash } from "../base/ids.ts";
import { parseStoreKey } from "../store/key.ts";

/** SQLCipher 4's own count of PBKDF2-HMAC-SHA512. */
const PASSPHRASE_ITERATIONS = 256_000;
/** Of the key of an unencrypted store: its MAC finds damage and proves nothing. */
const NO_KEY_ID = "none";

/** What is derived from a DB key for backups. */
export class BackupKey {
  /** 16 hex digits; `none` for an unencrypted store. */
  readonly id: string;
  /** Text of the key, to open the copy with. Never printed. */
  readonly text: string;
  readonly #macKey: CryptoKey;
  readonly #nameKey: CryptoKey;

  private constructor(parts: { id: string; text: string; macKey: CryptoKey; nameKey: CryptoKey }) {
    this.id = parts.id;
    this.text = parts.text;
    this.#macKey = parts.macKey;
    this.#nameKey = parts.nameKey;
  }

  /** Derives it from the text of a DB key, as `db_key` has it. */
  static async derive(text: string, realmId: string): Promise<BackupKey> {
    const material = await materialOf(text, realmId);
    const source = await crypto.subtle.importKey("raw", material, "HKDF", false, ["deriveBits"]);
    const derive = async (info: string, bytes: number) => {
      const parameters = { name: "HKDF", hash: "SHA-256", salt: utf8(realmId), info: utf8(info) };
      return new Uint8Array(await crypto.subtle.deriveBits(parameters, source, bytes * 8));
    };
    const hmacKey = async (info: string) => {
      const algorithm = { name: "HMAC", hash: "SHA-256" };
      return await crypto.subtle.importKey("raw", await derive(info, 32), algorithm, false, [
        "sign",
        "verify",
      ]);
    };
    return new BackupKey({
      id: text === "" ? NO_KEY_ID : hex(await derive("qpq backup key id", 8)),
      text,
      macKey: await hmacKey("qpq backup manifest"),
      nameKey: await hmacKey("qpq backup blob name"),
    });
  }

  /** HMAC-SHA-256 of a manifest (32 bytes). */
  async mac(manifest: Uint8Array): Promise<Bytes> {
    return new Uint8Array(await crypto.subtle.sign("HMAC", this.#macKey, manifest as Bytes));
  }

  /** Does the MAC fit? In constant time. */
  async fits(manifest: Uint8Array, mac: Uint8Array): Promise<boolean> {
    return await crypto.subtle.verify("HMAC", this.#macKey, mac as Bytes, manifest as Bytes);
  }

  /** Name of an encrypted blob: 64 hex digits. A blob's own hash would give anybody with a login its ciphertext. */
  async hiddenName(hash: BlobHash): Promise<string> {
    return hex(new Uint8Array(await crypto.subtle.sign("HMAC", this.#nameKey, fromHex(hash))));
  }
}

async function materialOf(text: string, realmId: string): Promise<Bytes> {
  const key = parseStoreKey(text);
  if (key.kind === "raw") return key.key;
  if (key.kind === "none") return new Uint8Array(32);
  const source = await crypto.subtle.importKey("raw", utf8(key.passphrase), "PBKDF2", false, ["deriveBits"]);
  const salt = utf8(`qpq backup ${realmId}`);
  const parameters = { name: "PBKDF2", hash: "SHA-512", salt, iterations: PASSPHRASE_ITERATIONS };
  return new Uint8Array(await crypto.subtle.deriveBits(parameters, source, 256));
}
