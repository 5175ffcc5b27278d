/** Access tokens and invitation codes: made, normalised, compared. Neither is ever stored or compared in clear. */
import { type Bytes, equalConstantTime, randomBytes, sha256, utf8 } from "../base/bytes.ts";

/** One accepted token. */
export interface AccessToken {
  readonly token: string;
  /** End of a rotation's overlap, Unix ms; null: as long as it is configured. */
  readonly until: number | null;
}

/** The access tokens that a server accepts at present; several during a rotation. */
export class AccessTokens {
  #hashes: readonly { readonly sha256: Bytes; readonly until: number | null }[] = [];

  /** Hashes `tokens`, see {@link replace}. */
  static async of(tokens: readonly AccessToken[]): Promise<AccessTokens> {
    const accepted = new AccessTokens();
    await accepted.replace(tokens);
    return accepted;
  }

  /** From now on exactly `tokens` are accepted. None at all: the server runs without, everybody is admitted. */
  async replace(tokens: readonly AccessToken[]): Promise<void> {
    this.#hashes = await Promise.all(
      tokens.map(async ({ token, until }) => ({ sha256: await sha256(utf8(token)), until })),
    );
  }

  /** Is the server open to everybody? */
  get none(): boolean {
    return this.#hashes.length === 0;
  }

  /** Is `token` accepted at `now`? The time taken tells nothing about which one matched, or how far. */
  async accepts(token: string, now: number): Promise<boolean> {
    const hash = await sha256(utf8(token));
    let accepted = false;
    for (const known of this.#hashes) {
      const same = equalConstantTime(hash, known.sha256);
      accepted = (same && (known.until === null || now < known.until)) || accepted;
    }
    return accepted;
  }
}

/** Crockford's alphabet: without I, L, O and U, which are read or said wrongly. */
const ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const GROUPS = 7;
const GROUP_SYMBOLS = 4;

/** A new invitation code: seven groups of four symbols, 140 random bits. */
export function makeInvitation(): string {
  const symbols = [...randomBytes(GROUPS * GROUP_SYMBOLS)].map((byte) => ALPHABET[byte & 31]!).join("");
  return symbols.match(/.{4}/g)!.join("-");
}

/** What is stored of an invitation: SHA-256 of its symbols. Lower case, missing dashes and O for 0 do not matter. */
export function hashInvitation(code: string): Promise<Bytes> {
  const symbols = code.toUpperCase().replace(/[\s-]/g, "").replace(/O/g, "0").replace(/[IL]/g, "1");
  return sha256(utf8(symbols));
}
