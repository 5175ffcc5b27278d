/**
 * What people say to each other: the plaintext of MLS application messages (content.proto), checked on the way in,
 * since a member of the group may have made it with any program.
 */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Bytes, copy } from "../base/bytes.ts";
import { tryNormaliseDomain } from "../base/user_address.ts";
import { ContentSchema, type File as FileMessage } from "./content_pb.ts";

/** Largest chunk of a file that is accepted: it must fit in memory. */
export const FILE_CHUNK_BYTES_MAX = 16 << 20;
const FILE_NAME_BYTES_MAX = 255;
const MEDIA_TYPE_PATTERN = /^[\w.+-]{1,64}\/[\w.+-]{1,64}$/;

/** A file in a blob, with all that is needed to get and open it. */
export interface FileReference {
  /** SHA-256 of the ciphertext: the blob's address. */
  readonly blobSha256: Bytes;
  readonly key: Bytes;
  readonly chunkBytes: number;
  /** Plaintext bytes. */
  readonly size: number;
  /** Without a path; safe to create in a folder. */
  readonly name: string;
  readonly mediaType: string;
  /** When the blob may be gone; 0: not known. */
  readonly expiresAtMs: number;
  /** Of the server that has the blob; without, the sender's own server had no domain. */
  readonly domain?: string;
}

/** The content of a message. */
export type MessageContent =
  | { readonly kind: "text"; readonly sentAtMs: number; readonly text: string }
  | { readonly kind: "file"; readonly sentAtMs: number; readonly file: FileReference }
  /** Of a newer program, or malformed: shown as unsupported. */
  | { readonly kind: "unsupported"; readonly sentAtMs: number };

/** Bytes of a content that this program makes. */
export function encodeContent(content: Exclude<MessageContent, { kind: "unsupported" }>): Bytes {
  const sentAtMs = BigInt(content.sentAtMs);
  if (content.kind === "text") {
    const body = { case: "text" as const, value: { text: content.text } };
    return copy(toBinary(ContentSchema, create(ContentSchema, { sentAtMs, body })));
  }
  const { file } = content;
  const value = { ...file, size: BigInt(file.size), expiresAtMs: BigInt(file.expiresAtMs) };
  const body = { case: "file" as const, value };
  return copy(toBinary(ContentSchema, create(ContentSchema, { sentAtMs, body })));
}

/** The content in `bytes`; never throws. */
export function decodeContent(bytes: Uint8Array): MessageContent {
  try {
    const { sentAtMs: sent, body } = fromBinary(ContentSchema, bytes);
    const sentAtMs = safeNumber(sent) ?? 0;
    if (body.case === "text") return { kind: "text", sentAtMs, text: body.value.text };
    const file = body.case === "file" ? fileReference(body.value) : undefined;
    return file ? { kind: "file", sentAtMs, file } : { kind: "unsupported", sentAtMs };
  } catch {
    return { kind: "unsupported", sentAtMs: 0 }; // no Protocol Buffers message: whoever sent it is told nothing
  }
}

function safeNumber(value: bigint): number | undefined {
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : undefined;
}

function fileReference(file: FileMessage): FileReference | undefined {
  const size = safeNumber(file.size);
  const isValid = file.blobSha256.length === 32 && file.key.length === 32 && file.chunkBytes >= 1 &&
    file.chunkBytes <= FILE_CHUNK_BYTES_MAX;
  if (!isValid || size === undefined) return undefined;
  return {
    blobSha256: copy(file.blobSha256),
    key: copy(file.key),
    chunkBytes: file.chunkBytes,
    size,
    name: safeFileName(file.name),
    mediaType: MEDIA_TYPE_PATTERN.test(file.mediaType) ? file.mediaType : "application/octet-stream",
    expiresAtMs: safeNumber(file.expiresAtMs) ?? 0,
    ...(tryNormaliseDomain(file.domain) === file.domain ? { domain: file.domain } : {}),
  };
}

/**
 * A name that can be created in a folder on any system: the last part of a path, without control characters,
 * characters that turn the direction of text, or those that systems reserve; never hidden, empty or a device.
 */
export function safeFileName(name: string): string {
  const last = name.split(/[/\\]/).at(-1) ?? "";
  const plain = last.normalize("NFC")
    // deno-lint-ignore no-control-regex
    .replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "")
    .replace(/[<>:"|?*]/g, "_")
    .replace(/^[.\s]+|[.\s]+$/g, "");
  const cut = cutToBytes(plain, FILE_NAME_BYTES_MAX);
  if (cut === "") return "file";
  return /^(con|prn|aux|nul|com\d|lpt\d)(\.|$)/i.test(cut) ? `_${cut}` : cut;
}

/** The longest beginning of whole characters that fits, with the extension kept when it is short. */
function cutToBytes(text: string, bytesMax: number): string {
  const encoder = new TextEncoder();
  if (encoder.encode(text).length <= bytesMax) return text;
  const extension = /\.[^.]{1,16}$/.exec(text)?.[0] ?? "";
  const room = bytesMax - encoder.encode(extension).length;
  let kept = "";
  let length = 0;
  for (const character of text.slice(0, text.length - extension.length)) {
    length += encoder.encode(character).length;
    if (length > room) break;
    kept += character;
  }
  return kept + extension;
}

/** Text that cannot move the cursor, change colours or hide other text when it is printed on a terminal. */
export function printableText(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
}
