/** Protocol Buffers messages made at random from their descriptors: every field, odd values, wrong lengths of ids. */
import {
  create,
  type DescField,
  type DescMessage,
  type Message,
  ScalarType,
  toBinary,
} from "@bufbuild/protobuf";
import { file_content } from "../../mod/client/content_pb.ts";
import { file_federation } from "../../mod/protocol/federation_pb.ts";
import { METHODS } from "../../mod/protocol/methods.ts";
import { file_qpq } from "../../mod/protocol/qpq_pb.ts";
import type { Random } from "./random.ts";

/** Every message of the protocol and of what clients say to each other. */
export const MESSAGES: readonly DescMessage[] = [
  ...file_qpq.messages,
  ...file_content.messages,
  ...file_federation.messages,
];

/** All methods. */
export const METHOD_ROWS = Object.values(METHODS);

/** How deep messages in messages go. */
const DEPTH_MAX = 4;

/** The bytes of a random message. */
export function randomMessage(random: Random, schema: DescMessage): Uint8Array {
  return toBinary(schema, fill(random, schema, 0));
}

function fill(random: Random, schema: DescMessage, depth: number): Message {
  const fields: Record<string, unknown> = {};
  for (const field of schema.fields) {
    if (random.oneIn(4)) continue;
    const value = valueOf(random, field, depth);
    if (value === undefined) continue;
    if (field.oneof) fields[field.oneof.localName] = { case: field.localName, value };
    else fields[field.localName] = value;
  }
  return create(schema, fields as never);
}

function valueOf(random: Random, field: DescField, depth: number): unknown {
  switch (field.fieldKind) {
    case "scalar":
      return scalar(random, field.scalar);
    case "enum":
      return random.below(6);
    case "message":
      return depth < DEPTH_MAX ? fill(random, field.message, depth + 1) : undefined;
    case "list":
      return random.list(5, () => {
        if (field.listKind === "message") return fill(random, field.message, depth + 1);
        return field.listKind === "enum" ? random.below(6) : scalar(random, field.scalar);
      });
    case "map":
      return undefined;
  }
}

const WORDS = [
  "",
  "alice",
  "x".repeat(65),
  "../../etc/passwd",
  "ALICE",
  "ü\u0000",
  "%s%n",
  "\ud7ff",
  "-".repeat(600),
];
const BIG = [0n, 1n, 255n, 1n << 32n, (1n << 53n) - 1n, 1n << 53n, (1n << 64n) - 1n];
const SMALL = [0, 1, 2, 255, 65_536, 0x7fff_ffff, 0xffff_ffff];
const LENGTHS = [0, 1, 15, 16, 17, 31, 32, 33, 64, 96, 192, 320];

function scalar(random: Random, type: ScalarType): unknown {
  switch (type) {
    case ScalarType.STRING:
      return random.pick(WORDS);
    case ScalarType.BYTES:
      return random.bytes(random.oneIn(4) ? random.length(2000) : random.pick(LENGTHS));
    case ScalarType.BOOL:
      return random.oneIn(2);
    case ScalarType.UINT64:
    case ScalarType.FIXED64:
      return random.pick(BIG);
    case ScalarType.INT64:
    case ScalarType.SINT64:
      return BigInt.asIntN(64, random.pick(BIG));
    case ScalarType.INT32:
    case ScalarType.SINT32:
      return random.pick(SMALL) | 0;
    default:
      return random.pick(SMALL);
  }
}
