/**
 * Damage in a write-ahead log that a stop has left. SQLite takes a log up to the first frame that does not pass its
 * checksum and forgets the rest, as if the rest were an incomplete last write; a bit that turned on the disk would so
 * take acknowledged transactions with it. But each transaction is synced before the next one is written: behind the
 * frame that does not pass there can be one commit of this log, not two.
 *
 * The log: 32 bytes (magic, version, page size, checkpoint, two salts, checksum), then frames of 24 bytes and a page
 * (page number, size of the database for a commit or 0, salts, checksum). Checksums go on from frame to frame. What
 * recovery has passed over must not stay behind new frames, so the log is emptied after it: see openDatabase.
 */
import { equal } from "../../base/bytes.ts";

const HEADER_BYTES = 32;
const FRAME_HEADER_BYTES = 24;
const MAGIC = 0x377f0682;

type Sum = readonly [number, number];

/** Where the log at `path` is damaged; null: nowhere, or there is none. */
export function findWalDamage(path: string): number | null {
  let file: Deno.FsFile;
  try {
    file = Deno.openSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
  try {
    return damageIn(file, file.statSync().size);
  } finally {
    file.close();
  }
}

function damageIn(file: Deno.FsFile, size: number): number | null {
  if (size <= HEADER_BYTES) return null;
  const header = readAt(file, 0, HEADER_BYTES);
  const view = new DataView(header.buffer);
  const littleEndian = view.getUint32(0) === MAGIC;
  const known = littleEndian || view.getUint32(0) === MAGIC + 1;
  let sum = sumOf([0, 0], header.subarray(0, 24), littleEndian);
  // The header is synced before the first frame is written.
  if (!known || !isSum(header.subarray(24), sum)) return 0;
  const frameBytes = FRAME_HEADER_BYTES + view.getUint32(8);
  const salts = header.slice(16, 24);
  for (let at = HEADER_BYTES; at + frameBytes <= size; at += frameBytes) {
    const frame = readAt(file, at, frameBytes);
    sum = sumOf(sum, frame.subarray(0, 8), littleEndian);
    sum = sumOf(sum, frame.subarray(FRAME_HEADER_BYTES), littleEndian);
    if (equal(frame.subarray(8, 16), salts) && isSum(frame.subarray(16, 24), sum)) continue;
    return commitsFrom(file, { at, size, frameBytes, salts }) > 1 ? at : null;
  }
  return null;
}

/**
 * Commits of this log from the frame at `at` on. By their salts: where a write was torn, a frame of the log before may
 * still lie in the place of one of its own.
 */
function commitsFrom(
  file: Deno.FsFile,
  { at, size, frameBytes, salts }: { at: number; size: number; frameBytes: number; salts: Uint8Array },
): number {
  let commits = 0;
  for (let frame = at; frame + frameBytes <= size; frame += frameBytes) {
    const head = readAt(file, frame, FRAME_HEADER_BYTES);
    const ours = equal(head.subarray(8, 16), salts);
    if (ours && new DataView(head.buffer).getUint32(4) !== 0) commits++;
  }
  return commits;
}

/** SQLite's checksum (WAL format, §4.3), going on from `sum`. */
function sumOf(sum: Sum, bytes: Uint8Array, littleEndian: boolean): Sum {
  let [first, second] = sum;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at < bytes.length; at += 8) {
    first = (first + view.getUint32(at, littleEndian) + second) >>> 0;
    second = (second + view.getUint32(at + 4, littleEndian) + first) >>> 0;
  }
  return [first, second];
}

function isSum(bytes: Uint8Array, [first, second]: Sum): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, 8);
  return view.getUint32(0) === first && view.getUint32(4) === second;
}

function readAt(file: Deno.FsFile, offset: number, length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  file.seekSync(offset, Deno.SeekMode.Start);
  for (let filled = 0; filled < length;) {
    const count = file.readSync(bytes.subarray(filled));
    if (count === null) throw new Error(`The log ends before ${offset + length}`);
    filled += count;
  }
  return bytes;
}
