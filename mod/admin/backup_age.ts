/**
 * Encryption of backups to age recipients (age-encryption.org/v1), in streams: no file is ever held in memory. Whoever
 * makes backups needs public recipients only; the identities that open them can lie elsewhere.
 */
import { Decrypter, Encrypter, generateIdentity, identityToRecipient } from "age-encryption";
import { messageOf } from "../base/errors.ts";
import { AdminError } from "./operations_error.ts";

/** Encrypts to everyone in `recipients` (`age1…`). Throws AdminError for one that is none. */
export function encrypterFor(recipients: readonly string[]): (plain: AsyncIterable<Uint8Array>) => Chunks {
  const encrypter = new Encrypter();
  for (const recipient of recipients) {
    try {
      encrypter.addRecipient(recipient);
    } catch (cause) {
      throw new AdminError(
        `${JSON.stringify(recipient)} is no age recipient (${messageOf(cause)}): it begins with age1, and ` +
          "age-keygen prints it beside a new identity",
        { cause },
      );
    }
  }
  return async function* (plain) {
    yield* await encrypter.encrypt(streamOf(plain));
  };
}

/** Decrypts with the identities in a file's text: `AGE-SECRET-KEY-1…` lines, `#` comments. Throws AdminError. */
export function decrypterFor(identities: string): (encrypted: AsyncIterable<Uint8Array>) => Chunks {
  const decrypter = new Decrypter();
  const keys = identityLines(identities);
  if (keys.length === 0) throw new AdminError("The identity file holds no identity (AGE-SECRET-KEY-1…)");
  for (const [index, key] of keys.entries()) {
    try {
      decrypter.addIdentity(key);
    } catch {
      // The message of the library could repeat what it was given.
      throw new AdminError(
        `Identity ${index + 1} of the identity file is no age identity (AGE-SECRET-KEY-1…)`,
      );
    }
  }
  return async function* (encrypted) {
    try {
      yield* await decrypter.decrypt(streamOf(encrypted));
    } catch (cause) {
      if (/no identity matched/.test(messageOf(cause))) {
        throw new AdminError("The backup is encrypted to other recipients: none of the identities opens it", {
          cause,
        });
      }
      throw cause;
    }
  };
}

/** A new identity as the text of a file, as age-keygen would write it. */
export async function newIdentity(now: number): Promise<string> {
  const identity = await generateIdentity();
  const recipient = await identityToRecipient(identity);
  return `# created: ${new Date(now).toISOString()}\n# public key: ${recipient}\n${identity}\n`;
}

/** The recipients that the identities in a file's text are of. Throws AdminError. */
export async function recipientsOf(identities: string): Promise<string[]> {
  decrypterFor(identities);
  return await Promise.all(identityLines(identities).map((identity) => identityToRecipient(identity)));
}

function identityLines(text: string): string[] {
  return text.split(/\r?\n/).map((line) => line.trim()).filter((line) =>
    line !== "" && !line.startsWith("#")
  );
}

type Chunks = AsyncGenerator<Uint8Array>;

function streamOf(chunks: AsyncIterable<Uint8Array>): ReadableStream<Uint8Array> {
  return ReadableStream.from(chunks);
}
