/** Tables of the delivery queues, and the indexes over them: entries in order, who holds how much, payload users. */
import type { DeviceId } from "../../base/ids.ts";
import { RECORD_EXTRA_BYTES } from "./record.ts";
import type {
  BodyRow,
  DailyRow,
  EntryRow,
  GuardRow,
  MessageIdRow,
  OutboxRow,
  PeerRow,
  QueueRow,
  SenderKey,
} from "./rows.ts";
import { numberKey, Table } from "./table.ts";

/** The tables of the delivery queues. */
export function queueTables() {
  return {
    queues: new Table<QueueRow>(40, {
      key: (row) => row.deviceId,
      columns: {
        deviceId: "text",
        ackedThrough: "number",
        nextSeq: "number",
        droppedThrough: "number",
        droppedCount: "number",
      },
    }),
    bodies: new Table<BodyRow>(41, {
      key: (row) => numberKey(row.bodyId),
      columns: {
        bodyId: "number",
        kind: "text",
        entryId: "text",
        senderAccount: "text?",
        senderDevice: "text?",
        acceptedAt: "number",
        expiresAt: "number",
        segment: "number",
        offset: "number",
        length: "number",
        senderDomain: "text?",
      },
    }),
    entries: new Table<EntryRow>(42, {
      key: (row) => row.deviceId + numberKey(row.seq),
      columns: { deviceId: "text", seq: "number", bodyId: "number" },
    }),
    messageIds: new Table<MessageIdRow>(43, {
      key: (row) => row.senderAccount + row.messageId,
      columns: {
        senderAccount: "text",
        messageId: "text",
        senderDevice: "text",
        requestSha256: "bytes",
        recipients: "text",
        acceptedAt: "number",
        expiresAt: "number",
      },
    }),
    daily: new Table<DailyRow>(44, {
      key: (row) => row.accountId,
      columns: { accountId: "text", day: "number", sentBytes: "number", guards: "number" },
    }),
    guards: new Table<GuardRow>(45, {
      key: (row) => row.groupId,
      columns: { groupId: "text", epoch: "number", tokenSha256: "bytes", usedAt: "number" },
    }),
    peers: new Table<PeerRow>(46, {
      key: (row) => row.domain,
      columns: { domain: "text", blockedAt: "number?" },
    }),
    outbox: new Table<OutboxRow>(47, {
      key: (row) => numberKey(row.bodyId),
      columns: { bodyId: "number", domain: "text", recipients: "number" },
    }),
  };
}

type QueueTables = ReturnType<typeof queueTables>;

/** Entries and payload bytes. */
export interface Load {
  readonly entries: number;
  readonly bytes: number;
}

const EMPTY: Load = { entries: 0, bytes: 0 };

/** The entries of one queue by ascending number; removal at the front is cheap. */
export class EntryList {
  #rows: EntryRow[] = [];
  /** Rows before this one are gone. */
  #head = 0;
  load: Load = EMPTY;
  readonly bySender = new Map<SenderKey, Load>();

  get length(): number {
    return this.#rows.length - this.#head;
  }

  /** Entries with numbers above `seq`, in order. Not to be walked while entries are removed. */
  *after(seq: number): Generator<EntryRow> {
    for (let i = this.#position(seq + 1); i < this.#rows.length; i++) yield this.#rows[i]!;
  }

  add(row: EntryRow): void {
    const last = this.#rows.at(-1);
    if (this.length === 0 || last!.seq < row.seq) this.#rows.push(row);
    else this.#rows.splice(this.#position(row.seq), 0, row);
  }

  remove(seq: number): void {
    const position = this.#position(seq);
    if (position !== this.#head) {
      this.#rows.splice(position, 1);
      return;
    }
    this.#head++;
    if (this.#head > 64 && this.#head * 2 > this.#rows.length) {
      this.#rows = this.#rows.slice(this.#head);
      this.#head = 0;
    }
  }

  /** Index of the first row whose number is not below `seq`. */
  #position(seq: number): number {
    let low = this.#head;
    let high = this.#rows.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#rows[middle]!.seq < seq) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** Indexes over the queues. */
export class QueueIndex {
  readonly #tables: QueueTables;
  readonly #lists = new Map<DeviceId, EntryList>();
  readonly #users = new Map<number, number>();
  readonly #messageIds = new Map<DeviceId | SenderKey, Set<string>>();
  readonly #outboxes = new Map<string, { load: Load; ids: Set<number> }>();
  readonly #segmentBytes = new Map<number, number>();
  #bodyIdNext = 1;
  /** Payload bytes in all queues: a payload counts once for each entry. */
  queueBytes = 0;
  /** Bytes of the bodies in all outboxes. */
  outboxBytes = 0;

  constructor(tables: QueueTables) {
    this.#tables = tables;
    tables.bodies.onChange = (before, after) => {
      if (before) this.#countSegment(before, -1);
      if (after) this.#countSegment(after, 1);
      if (after && after.bodyId >= this.#bodyIdNext) this.#bodyIdNext = after.bodyId + 1;
    };
    // An entry comes after its body and goes before it, so that the body can always be looked up here.
    tables.entries.onChange = (before, after) => {
      if (before) this.#account(before, -1);
      if (after) this.#account(after, 1);
    };
    tables.outbox.onChange = (before, after) => {
      if (before) this.#accountOutbox(before, -1);
      if (after) this.#accountOutbox(after, 1);
    };
    tables.messageIds.onChange = (before, after) => {
      if (before) this.#dropMessageId(before);
      if (after) this.#addMessageId(after);
    };
  }

  /** A number for a new body. */
  newBodyId(): number {
    return this.#bodyIdNext++;
  }

  list(deviceId: DeviceId): EntryList {
    return this.#lists.get(deviceId) ?? new EntryList();
  }

  /** In how many entries the body is. */
  usersOf(bodyId: number): number {
    return this.#users.get(bodyId) ?? 0;
  }

  /** What a sender holds in the list. */
  heldBy(list: EntryList, sender: SenderKey): Load {
    return list.bySender.get(sender) ?? EMPTY;
  }

  /** What waits for a domain. */
  outboxLoad(domain: string): Load {
    return this.#outboxes.get(domain)?.load ?? EMPTY;
  }

  /** Domains for which something waits. */
  outboxDomains(): string[] {
    return [...this.#outboxes.keys()].sort();
  }

  /** Ids of what waits for a domain, in order of acceptance. */
  outboxIds(domain: string): number[] {
    // Undoing a batch puts rows back at the end.
    return [...this.#outboxes.get(domain)?.ids ?? []].sort((a, b) => a - b);
  }

  #accountOutbox({ bodyId, domain }: OutboxRow, sign: 1 | -1): void {
    const { length } = this.#tables.bodies.get(numberKey(bodyId))!;
    const outbox = this.#outboxes.get(domain) ?? { load: EMPTY, ids: new Set() };
    this.#outboxes.set(domain, outbox);
    if (sign === 1) outbox.ids.add(bodyId);
    else outbox.ids.delete(bodyId);
    outbox.load = { entries: outbox.load.entries + sign, bytes: outbox.load.bytes + sign * length };
    if (outbox.ids.size === 0) this.#outboxes.delete(domain);
    this.outboxBytes += sign * length;
    this.#count(bodyId, sign);
  }

  /** Keys of the device's (or domain's) remembered message ids, oldest first. */
  messageIdsOf(sender: DeviceId | SenderKey): ReadonlySet<string> {
    return this.#messageIds.get(sender) ?? new Set();
  }

  /** Bytes of payloads, with their records, that live in a segment of the journal; 0: none. */
  segmentBytes(segment: number): number {
    return this.#segmentBytes.get(segment) ?? 0;
  }

  /** Segments with payloads in them. */
  segmentsInUse(): number[] {
    return [...this.#segmentBytes.keys()];
  }

  /** A payload counts with its record, so that an empty one keeps its segment, too. */
  #countSegment({ segment, length }: BodyRow, sign: 1 | -1): void {
    const sum = this.segmentBytes(segment) + sign * (length + RECORD_EXTRA_BYTES);
    if (sum === 0) this.#segmentBytes.delete(segment);
    else this.#segmentBytes.set(segment, sum);
  }

  #account(row: EntryRow, sign: 1 | -1): void {
    const body = this.#tables.bodies.get(numberKey(row.bodyId))!;
    const list = this.list(row.deviceId);
    if (sign === 1) list.add(row);
    else list.remove(row.seq);
    if (list.length === 0) this.#lists.delete(row.deviceId);
    else this.#lists.set(row.deviceId, list);
    this.#count(row.bodyId, sign);
    const bytes = sign * body.length;
    this.queueBytes += bytes;
    list.load = { entries: list.load.entries + sign, bytes: list.load.bytes + bytes };
    const sender = senderKeyOf(body.senderDomain, body.senderAccount);
    if (sender === null) return;
    const held = this.heldBy(list, sender);
    const holds = { entries: held.entries + sign, bytes: held.bytes + bytes };
    if (holds.entries === 0) list.bySender.delete(sender);
    else list.bySender.set(sender, holds);
  }

  #count(bodyId: number, sign: 1 | -1): void {
    const users = this.usersOf(bodyId) + sign;
    if (users === 0) this.#users.delete(bodyId);
    else this.#users.set(bodyId, users);
  }

  #addMessageId(row: MessageIdRow): void {
    const keys = this.#messageIds.get(row.senderDevice) ?? new Set();
    this.#messageIds.set(row.senderDevice, keys.add(this.#tables.messageIds.keyOf(row)));
  }

  #dropMessageId(row: MessageIdRow): void {
    const keys = this.#messageIds.get(row.senderDevice);
    keys?.delete(this.#tables.messageIds.keyOf(row));
    if (keys?.size === 0) this.#messageIds.delete(row.senderDevice);
  }
}

/** For whom something is counted; null: nobody. */
export function senderKeyOf<Account extends SenderKey | null>(
  domain: string | null,
  account: Account,
): Account | SenderKey {
  return domain === null ? account : `@${domain}`;
}
