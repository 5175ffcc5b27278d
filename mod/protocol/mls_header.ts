/**
 * What a delivery server may see of an MLSMessage (RFC 9420 §6): kind, group, epoch, content type. Never
 * throws and never copies. Reads at least what the most lenient client would read (lengths that are not
 * minimal, bytes after the end), so that no commit passes unseen; a message that is cut off is none.
 */

/** What a handshake or application message contains. */
export type MlsContentType = "application" | "proposal" | "commit";

/** Who says to have sent a PublicMessage. */
export type MlsSenderType = "member" | "external" | "new_member_proposal" | "new_member_commit";

/** The readable part of an MLSMessage. Byte strings are views into the message. */
export type MlsHeader =
  | {
    readonly kind: "privateMessage";
    readonly groupId: Uint8Array;
    readonly epoch: number;
    readonly contentType: MlsContentType;
  }
  | {
    readonly kind: "publicMessage";
    readonly groupId: Uint8Array;
    readonly epoch: number;
    readonly contentType: MlsContentType;
    readonly senderType: MlsSenderType;
  }
  | {
    readonly kind: "welcome";
    readonly suite: number;
    /** KeyPackageRefs of those who are welcomed. */
    readonly keyPackageRefs: readonly Uint8Array[];
  }
  | { readonly kind: "groupInfo" | "keyPackage" };

const VERSION_MLS10 = 1;
const CONTENT_TYPES: readonly (MlsContentType | undefined)[] = [
  undefined,
  "application",
  "proposal",
  "commit",
];
const SENDER_TYPES: readonly (MlsSenderType | undefined)[] = [
  undefined,
  "member",
  "external",
  "new_member_proposal",
  "new_member_commit",
];

/** Takes fields off the front of a byte string; undefined when it has too few bytes. */
class Reader {
  readonly #bytes: Uint8Array;
  #offset = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get atEnd(): boolean {
    return this.#offset === this.#bytes.length;
  }

  take(length: number): Uint8Array | undefined {
    if (length > this.#bytes.length - this.#offset) return undefined;
    this.#offset += length;
    return this.#bytes.subarray(this.#offset - length, this.#offset);
  }

  /** A big-endian number of at most 6 bytes. */
  uint(length: number): number | undefined {
    return this.take(length)?.reduce((value, byte) => value * 256 + byte, 0);
  }

  /** A uint64; undefined above 2^53 too. */
  uint64(): number | undefined {
    const high = this.uint(4);
    const low = this.uint(4);
    if (high === undefined || low === undefined) return undefined;
    const value = high * 2 ** 32 + low;
    // 2^53 + 1 rounds to 2^53: judged by the halves, it cannot pass for it.
    return high < 2 ** 21 || (high === 2 ** 21 && low === 0) ? value : undefined;
  }

  /** A variable-size vector (RFC 9420 §2.1.2). */
  vector(): Uint8Array | undefined {
    const first = this.uint(1);
    if (first === undefined || first >= 0xc0) return undefined;
    const more = (1 << (first >> 6)) - 1;
    const rest = this.uint(more);
    return rest === undefined ? undefined : this.take((first & 0x3f) * 256 ** more + rest);
  }
}

/** The readable part of an MLSMessage; null for anything that is not one. */
export function parseMlsMessage(bytes: Uint8Array): MlsHeader | null {
  const reader = new Reader(bytes);
  if (reader.uint(2) !== VERSION_MLS10) return null;
  switch (reader.uint(2)) {
    case 1:
      return publicMessage(reader);
    case 2:
      return privateMessage(reader);
    case 3:
      return welcome(reader);
    case 4:
      return { kind: "groupInfo" };
    case 5:
      return { kind: "keyPackage" };
    default:
      return null;
  }
}

function privateMessage(reader: Reader): MlsHeader | null {
  const groupId = reader.vector();
  const epoch = reader.uint64();
  const contentType = CONTENT_TYPES[reader.uint(1) ?? 0];
  const authenticatedData = reader.vector();
  const encryptedSenderData = reader.vector();
  const ciphertext = reader.vector();
  const whole = authenticatedData && encryptedSenderData && ciphertext;
  if (!groupId || epoch === undefined || !contentType || !whole) return null;
  return { kind: "privateMessage", groupId, epoch, contentType };
}

/** Checked as far as the content type: what follows has no length of its own. */
function publicMessage(reader: Reader): MlsHeader | null {
  const groupId = reader.vector();
  const epoch = reader.uint64();
  const senderType = SENDER_TYPES[reader.uint(1) ?? 0];
  const index = senderType === "member" || senderType === "external" ? reader.uint(4) : 0;
  const authenticatedData = reader.vector();
  const contentType = CONTENT_TYPES[reader.uint(1) ?? 0];
  if (!groupId || epoch === undefined || !senderType || index === undefined) return null;
  if (!authenticatedData || !contentType) return null;
  return { kind: "publicMessage", groupId, epoch, contentType, senderType };
}

function welcome(reader: Reader): MlsHeader | null {
  const suite = reader.uint(2);
  const secrets = reader.vector();
  const encryptedGroupInfo = reader.vector();
  if (suite === undefined || !secrets || !encryptedGroupInfo) return null;
  const keyPackageRefs: Uint8Array[] = [];
  for (const one = new Reader(secrets); !one.atEnd;) {
    const ref = one.vector();
    const kemOutput = one.vector();
    const ciphertext = one.vector();
    if (!ref || !kemOutput || !ciphertext) return null;
    keyPackageRefs.push(ref);
  }
  return { kind: "welcome", suite, keyPackageRefs };
}
