/** What one batch writes: the records of its payloads, then one of its changes; and how that is read again. */
import type { Bytes } from "../../base/bytes.ts";
import type { BodyRow } from "./rows.ts";
import type { Journal } from "./journal.ts";
import type { State } from "./state.ts";
import { type AnyTable, numberKey } from "./table.ts";
import { type Value, ValueError, ValueReader, ValueWriter } from "./value.ts";

const writer = new ValueWriter();

/** The records of the current batch; its new bodies learn where their payloads will lie. */
export function encodeBatch(state: State, journal: Journal): Bytes[] {
  const { sealer, fileNumber, size } = journal.active;
  const batch = journal.nextBatch;
  const records: Bytes[] = [];
  let offset = size;
  for (const [key, payload] of state.payloads) {
    const body = state.queues.bodies.get(key);
    if (!body) continue; // came and went within the batch
    const record = sealer.seal("payload", payload, { batch, offset });
    state.put(state.queues.bodies, { ...body, segment: fileNumber, offset });
    records.push(record);
    offset += record.length;
  }
  const changes = encodeChanges(state, records.length);
  records.push(sealer.seal("commit", changes, { batch, offset }));
  return records;
}

/** Number of payload records, then for each row either its fields or its key, when it is gone. */
function encodeChanges(state: State, payloadCount: number): Bytes {
  writer.take();
  writer.write(payloadCount);
  for (const { table, key } of state.netChanges()) writeRow(writer, table, key);
  return writer.take();
}

/** Appends one row: its fields, or its key when it is not there. */
export function writeRow(to: ValueWriter, table: AnyTable, key: string): void {
  to.write([table.id, table.encode(key) ?? key]);
}

/** Loads the changes of a batch; returns how many payload records it has. Throws ValueError. */
export function loadChanges(state: State, body: Uint8Array): number {
  const reader = new ValueReader(body);
  const payloadCount = reader.read();
  if (typeof payloadCount !== "number") throw new ValueError("Batch does not begin with a number");
  while (!reader.done) loadRow(state, reader.read());
  return payloadCount;
}

/** Loads one row. Throws ValueError. */
export function loadRow(state: State, change: Value): void {
  if (!Array.isArray(change) || change.length !== 2) throw new ValueError("Change is not a pair");
  const [tableId, content] = change as [Value, Value];
  const table = typeof tableId === "number" ? state.tables.get(tableId) : undefined;
  if (!table) throw new ValueError(`Table is unknown: ${tableId}`);
  if (typeof content === "string") table.unload(content);
  else table.load(content);
}

/** Does every entry have its body, and every body a record that `holds` it? Returns the first problem. */
export function findBrokenReference(state: State, holds: (body: BodyRow) => boolean): string | undefined {
  for (const entry of state.queues.entries.rows()) {
    if (!state.queues.bodies.has(numberKey(entry.bodyId))) return `entry ${entry.seq} has no payload`;
  }
  for (const { bodyId, domain } of state.queues.outbox.rows()) {
    if (!state.queues.bodies.has(numberKey(bodyId))) return `message ${bodyId} for ${domain} has no body`;
  }
  for (const body of state.queues.bodies.rows()) {
    if (!holds(body)) return `the payload at ${body.offset} of segment ${body.segment} is not there`;
  }
  return undefined;
}
