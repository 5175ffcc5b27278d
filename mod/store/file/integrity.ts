/** Reads everything that a journal holds, and counts it again. */
import type { Watch } from "./copy.ts";
import type { SourceFile } from "./copy.ts";
import { HEADER_BYTES } from "./header.ts";
import { RECORD_EXTRA_BYTES } from "./record.ts";
import { RecordReader } from "./record_reader.ts";
import type { BodyRow } from "./rows.ts";
import { sealerOf, type StoreFiles } from "./segment.ts";
import { countAll } from "./server_rows.ts";
import { sourceFiles, type StoreParts, totalBytes } from "./snapshot.ts";
import type { State } from "./state.ts";
import { numberKey } from "./table.ts";

/** See AdminStore.checkIntegrity. */
export function checkIntegrity(
  parts: StoreParts,
  watch: Watch & { readonly onTotal: (bytes: number) => void },
): Promise<string[]> {
  // Files must not be dropped, nor payloads moved, before they are read.
  return parts.compaction.paused(async () => {
    const { sources, bodies, problems } = await parts.committer.alone(() => ({
      sources: sourceFiles(parts),
      bodies: [...parts.state.queues.bodies.rows()],
      problems: checkRows(parts.state),
    }));
    watch.onTotal(totalBytes(sources));
    for (const source of sources) {
      const own = bodies.filter((body) => source.kind === "segment" && body.segment === source.fileNumber);
      problems.push(...await checkFile(parts.journal.files, { source, bodies: own }, watch));
    }
    return problems;
  });
}

async function checkFile(
  files: StoreFiles,
  { source, bodies }: { source: SourceFile; bodies: readonly BodyRow[] },
  watch: Watch,
): Promise<string[]> {
  const missing = new Map(bodies.map((body) => [body.offset, body.length + RECORD_EXTRA_BYTES]));
  const file = await files.disk.open(source.path, "read");
  try {
    const reader = await RecordReader.begin(file, sealerOf(files, await file.read(0, HEADER_BYTES)));
    while (reader.offset < source.bytes) {
      watch.signal.throwIfAborted();
      const record = await reader.next();
      if (!record) return [`${source.path} is damaged at offset ${reader.offset}`];
      if (record.kind === "payload" && missing.get(record.offset) === record.length) {
        missing.delete(record.offset);
      }
      watch.onBytes(record.length);
    }
    return [...missing.keys()].map((offset) => `${source.path} has no payload at offset ${offset}`);
  } finally {
    file.close();
  }
}

/** What rows refer to is there, and the numbers that are kept are those of a recount. */
function checkRows(state: State): string[] {
  const problems: string[] = [];
  const refer = (there: boolean, what: string) => there || problems.push(what);
  const { accounts, names } = state.accounts;
  const { devices, sessions } = state.sessions;
  const { queues, entries, bodies, outbox, peers } = state.queues;
  for (const { accountId, userName } of accounts.rows()) {
    refer(names.get(userName)?.accountId === accountId, `account ${accountId} does not have its name`);
  }
  for (const device of devices.rows()) {
    refer(accounts.has(device.accountId), `device ${device.deviceId} has no account`);
    refer(device.revoked !== queues.has(device.deviceId), `device ${device.deviceId} has a wrong queue`);
  }
  for (const { sessionId, deviceId } of sessions.rows()) {
    refer(devices.has(deviceId), `session ${sessionId} has no device`);
  }
  const users = new Map<number, number>();
  for (const { deviceId, seq, bodyId } of entries.rows()) {
    users.set(bodyId, (users.get(bodyId) ?? 0) + 1);
    const queue = queues.get(deviceId);
    refer(queue !== undefined && seq < queue.nextSeq, `entry ${seq} of device ${deviceId} is in no queue`);
    refer(bodies.has(numberKey(bodyId)), `entry ${seq} of device ${deviceId} has no payload`);
  }
  for (const { bodyId, domain } of outbox.rows()) {
    users.set(bodyId, (users.get(bodyId) ?? 0) + 1);
    refer(peers.has(domain), `message ${bodyId} in the outbox is for a peer that is not known`);
    refer(bodies.has(numberKey(bodyId)), `message ${bodyId} in the outbox for ${domain} has no body`);
  }
  for (const { bodyId } of bodies.rows()) {
    const [kept, counted] = [state.queueIndex.usersOf(bodyId), users.get(bodyId) ?? 0];
    refer(kept === counted && counted > 0, `payload ${bodyId} counts ${kept} entries and has ${counted}`);
  }
  return [...problems, ...checkCounts(state)];
}

function checkCounts(state: State): string[] {
  const blobs = new Map([...state.blobs.references.rows()].map((row) => [row.hash, row.bytes]));
  let queueBytes = 0;
  for (const { bodyId } of state.queues.entries.rows()) {
    queueBytes += state.queues.bodies.get(numberKey(bodyId))?.length ?? 0;
  }
  let outboxBytes = 0;
  for (const { bodyId } of state.queues.outbox.rows()) {
    outboxBytes += state.queues.bodies.get(numberKey(bodyId))?.length ?? 0;
  }
  const recount: Record<string, number> = {
    devices: [...state.sessions.devices.rows()].filter((device) => !device.revoked).length,
    queueBytes,
    outboxBytes,
    keyPackages: [...state.keyPackages.packages.rows()].filter((row) => row.bytes).length,
    blobs: blobs.size,
    blobBytes: [...blobs.values()].reduce((sum, bytes) => sum + bytes, 0),
  };
  const kept: Record<string, number> = { ...countAll(state) };
  return Object.keys(recount)
    .filter((name) => kept[name] !== recount[name])
    .map((name) => `the counter ${name} is ${kept[name]}, a recount gives ${recount[name]}`);
}
