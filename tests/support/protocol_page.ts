/**
 * PROTOCOL.md as data: its frames, vectors and tables, and messages in the form that the page shows them: names
 * of the .proto file, byte strings in hex, enums by name, fields without a value left out.
 */
import assert from "node:assert/strict";
import {
  create,
  type DescEnum,
  type DescField,
  type DescMessage,
  fromBinary,
  type Message,
  ScalarType,
  toBinary,
} from "@bufbuild/protobuf";
import { type Bytes, concat, fromHex, hex } from "../../mod/base/bytes.ts";
import { encodeFrame, FRAME_BODY_BYTES_MAX, FrameDecoder } from "../../mod/protocol/frame.ts";
import { type MethodName, METHODS } from "../../mod/protocol/methods.ts";
import { ErrorResponseSchema } from "../../mod/protocol/qpq_pb.ts";

/** A message as the page shows it. */
export type PlainMessage = { [name: string]: unknown };

/** A frame as the page shows it. */
export interface PlainFrame {
  request_id: number;
  code: number;
  body: PlainMessage;
  /** Bytes of a blob behind the frame, in hex. */
  behind?: string;
}

/** What an example is: `response` and `push` have a method's response as their body, `error` an ErrorResponse. */
export type ExampleKind = "request" | "response" | "push" | "error";

/** One example of the page. */
export interface Example {
  readonly kind: ExampleKind;
  readonly method: MethodName;
  /** The words behind the method: tells examples of one method apart. */
  readonly variant: string;
  readonly bytes: Uint8Array;
  readonly frame: PlainFrame;
}

/** The page's text. */
export function readPage(): string {
  return Deno.readTextFileSync(new URL("../../mod/protocol/PROTOCOL.md", import.meta.url));
}

/** All examples: a block of hex, and behind it a block of JSON. */
export function examplesOf(page: string): Example[] {
  const pattern =
    /^```hex (request|response|push|error) (\w+) ?([^\n]*)\n([^`]*)```\n+```json\n([^`]*)```$/gm;
  return [...page.matchAll(pattern)].map(([, kind, method, variant, bytes, json]) => {
    assert.ok(method! in METHODS, `The page shows a method that is not there: ${method}`);
    return {
      kind: kind as ExampleKind,
      method: method as MethodName,
      variant: variant!,
      bytes: fromHex(bytes!.replace(/\s/g, "")),
      frame: JSON.parse(json!) as PlainFrame,
    };
  });
}

/** The vector with this name. */
export function vectorOf<Name extends string>(page: string, name: string): Record<Name, string> {
  const block = new RegExp(`^\`\`\`json vector ${name}\n([^\`]*)\`\`\`$`, "m").exec(page);
  assert.ok(block, `The page has no vector ${name}`);
  return JSON.parse(block[1]!) as Record<Name, string>;
}

/** The rows of the table whose header begins with these cells, as text without backticks. */
export function tableOf(page: string, ...header: readonly string[]): string[][] {
  const lines = page.split("\n").map((line) => line.startsWith("|") ? cellsOf(line) : null);
  const start = lines.findIndex((cells) => cells && header.every((cell, index) => cells[index] === cell));
  assert.ok(start >= 0, `The page has no table with the columns ${header.join(", ")}`);
  const rows: string[][] = [];
  for (let index = start + 2; lines[index]; index++) rows.push(lines[index]!);
  return rows;
}

function cellsOf(line: string): string[] {
  return line.split("|").slice(1, -1).map((cell) => cell.trim().replaceAll("`", ""));
}

/** The schema of an example's body. */
function schemaOf({ kind, method }: Pick<Example, "kind" | "method">): DescMessage {
  if (kind === "error") return ErrorResponseSchema;
  return kind === "request" ? METHODS[method].request : METHODS[method].response;
}

/** The bytes of a frame that is shown. */
export function encodeExample(example: Pick<Example, "kind" | "method" | "frame">): Bytes {
  const { request_id, code, body, behind } = example.frame;
  const schema = schemaOf(example);
  const bytes = encodeFrame(request_id, code, toBinary(schema, fromPlain(schema, body)));
  return concat(bytes, fromHex(behind ?? ""));
}

/** The frame in bytes that are shown. */
export function decodeExample(example: Pick<Example, "kind" | "method" | "bytes">): PlainFrame {
  const decoder = new FrameDecoder(() => FRAME_BODY_BYTES_MAX);
  for (const decoded of decoder.push(example.bytes)) {
    assert.ok(decoded.kind === "frame");
    const { requestId, code, body } = decoded.frame;
    const schema = schemaOf(example);
    const plain = { request_id: requestId, code, body: toPlain(schema, fromBinary(schema, body)) };
    const rest = hex(decoder.takeRest());
    return rest === "" ? plain : { ...plain, behind: rest };
  }
  throw new assert.AssertionError({ message: "The bytes are no whole frame" });
}

/** A message in the page's form. */
export function toPlain(schema: DescMessage, message: Message): PlainMessage {
  const fields = message as unknown as Record<string, unknown>;
  const plain: PlainMessage = {};
  for (const field of schema.fields) {
    const holder = field.oneof && fields[field.oneof.localName] as { case?: string; value?: unknown };
    const value = holder
      ? (holder.case === field.localName ? holder.value : undefined)
      : fields[field.localName];
    if (isEmpty(value) && (field.proto as { proto3Optional?: boolean }).proto3Optional !== true) continue;
    if (value === undefined) continue;
    plain[field.name] = Array.isArray(value)
      ? value.map((item) => plainValue(field, item))
      : plainValue(field, value);
  }
  return plain;
}

function isEmpty(value: unknown): boolean {
  const length = value instanceof Uint8Array || Array.isArray(value) ? value.length : undefined;
  return length === 0 || value === undefined || value === 0 || value === 0n || value === "" ||
    value === false;
}

function plainValue(field: DescField, value: unknown): unknown {
  if (value instanceof Uint8Array) return hex(value);
  if (typeof value === "bigint") return Number(value);
  if (field.message) return toPlain(field.message, value as Message);
  return field.enum ? enumName(field.enum, value as number) : value;
}

function enumName(schema: DescEnum, number: number): string {
  const found = schema.value[number];
  assert.ok(found, `${schema.name} has no ${number}`);
  return found.name;
}

/** The message behind a page's form; throws for names that the schema does not have. */
export function fromPlain(schema: DescMessage, plain: PlainMessage): Message {
  const init: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(plain)) {
    const field = schema.fields.find((one) => one.name === name);
    assert.ok(field, `${schema.name} has no field ${name}`);
    const read = Array.isArray(value) ? value.map((item) => wireValue(field, item)) : wireValue(field, value);
    if (field.oneof) init[field.oneof.localName] = { case: field.localName, value: read };
    else init[field.localName] = read;
  }
  return create(schema, init as never);
}

function wireValue(field: DescField, value: unknown): unknown {
  if (field.message) return fromPlain(field.message, value as PlainMessage);
  if (field.enum) return field.enum.values.find((one) => one.name === value)!.number;
  switch (field.scalar) {
    case ScalarType.BYTES:
      return fromHex(value as string);
    case ScalarType.UINT64:
      return BigInt(value as number);
    default:
      return value;
  }
}
