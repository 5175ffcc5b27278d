/**
 * What a name server may say of where another server is. The bytes of an input are choices: however they are changed,
 * most of them make a message that Deno's resolver reads, with records that nobody honest would have.
 */
import assert from "node:assert/strict";
import { concat, utf8 } from "../../mod/base/bytes.ts";
import { addressText, type NetAddress } from "../../mod/base/address.ts";
import { QpqError } from "../../mod/base/errors.ts";
import { Dialer } from "../../mod/federation/dial.ts";
import { FederationIdentity, Identities } from "../../mod/federation/identity.ts";
import { Peers } from "../../mod/federation/peers.ts";
import { PeerRefused } from "../../mod/federation/refusal.ts";
import { SrvResolver } from "../../mod/federation/srv.ts";
import { ConnectError } from "../../mod/transport/connect_error.ts";
import { isIpAddress, normalHost } from "../../mod/transport/host_names.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { authority, pemsFor } from "../support/peer_world.ts";
import { type RawAnswer, RawDnsServer } from "../support/raw_dns_server.ts";
import type { Random } from "./random.ts";
import type { Target } from "./target.ts";

/** The first bytes: how it comes, how often the records are repeated, the code of the reply, the length of garbage. */
const HOW_BYTES = 4;
const REPEATED = [1, 1, 1, 3, 60, 4000];
const MESSAGE_BYTES_MAX = 60_000;
/** What the resolver takes by UDP; what is longer comes by TCP. */
const DATAGRAM_BYTES_MAX = 400;
const NAME_BYTES_MAX = 255;
const LABEL_BYTES_MAX = 63;
const TARGETS_MAX = 16;
/** Escaped as `\ddd`, and a dot after each label. */
const HOSTNAME_CHARACTERS_MAX = 4 * NAME_BYTES_MAX;

const [SRV, CNAME, A, TXT] = [33, 5, 1, 16];
const KINDS = [SRV, SRV, SRV, SRV, SRV, CNAME, A, TXT] as const;
/** The question's name, the root, another name. */
const OWNERS = [[0xc0, 12], [0xc0, 12], [0xc0, 12], [0xc0, 12], [0], [1, 120, 0]];

const LABELS = [
  "x",
  "127",
  "0",
  "1",
  "10",
  "192",
  "169",
  "254",
  "localhost",
  "::1",
  "[",
  "fe80::1%lo",
  "a.b",
  "...",
]
  .map((text) => utf8(text));

/** A record of an answer, as the server would make it. */
interface MadeRecord {
  readonly bytes: Uint8Array;
  /** Port of a record that names a place; else null. */
  readonly port: number | null;
  /** It names one for the question. The resolver takes some others too: all come from the same server. */
  readonly fits: boolean;
}

/** A name server that is asked in earnest, and everything that is done with its answer but connecting. */
export async function dnsTarget(): Promise<Target> {
  const dns = new RawDnsServer();
  const clock = new FakeClock();
  const identity = await FederationIdentity.read(await pemsFor(await authority(), "a.example"), Date.now());
  const dialer = new Dialer({
    domain: "a.example",
    identities: new Identities(identity, clock),
    connector: { connect: ({ hostname }) => refuseToConnect(hostname) },
    clock,
  });
  return {
    name: "srv_answer",
    generate: randomAnswer,
    async run(input) {
      const { answer, ports, mustFind } = answerOf(input);
      dns.answer = answer;
      const srv = new SrvResolver({ clock, nameServer: dns.address });
      const peers = new Peers({ domain: "a.example", settings: { mode: "open", peers: [] }, srv });
      const admitted = await peers.admit("b.example").then(() => true, (error) => {
        assert.ok(error instanceof PeerRefused, error);
        return false;
      });
      const found = await peers.addressesOf("b.example").catch((error) => {
        assert.ok(error instanceof QpqError && error.code === "peerUnavailable", error);
        return null;
      });
      assert.equal(admitted, found !== null, "who may come in can be reached, and nobody else");
      if (mustFind) assert.ok(found, "a right record is not found");
      if (found) await checkAddresses(found, { ports, dialer });
    },
    close: () => dns[Symbol.asyncDispose](),
  };
}

function refuseToConnect(hostname: string): Promise<never> {
  return Promise.reject(new ConnectError("unreachable", `Nobody answers at ${normalHost(hostname)}`));
}

async function checkAddresses(
  found: readonly NetAddress[],
  { ports, dialer }: { ports: ReadonlySet<number>; dialer: Dialer },
): Promise<void> {
  assert.ok(found.length > 0 && found.length <= TARGETS_MAX, `${found.length} addresses`);
  for (const address of found) {
    const { hostname, port } = address;
    assert.ok(ports.has(port), `port ${port} is of no record that was sent`);
    assert.ok(hostname.length > 0 && hostname.length <= HOSTNAME_CHARACTERS_MAX, `host ${hostname}`);
    assert.match(hostname, /^[\x20-\x7e]+$/, "nothing that a terminal would obey");
    isIpAddress(hostname);
    const failure = await dialer.dial("b.example", address).then(() => null, (error) => error);
    assert.ok(failure instanceof QpqError && failure.code === "peerUnavailable", failure);
    assert.ok(failure.message.includes(addressText(address)));
  }
}

/** The input as choices. Where it ends, zeros follow. */
class Choices {
  #at = 0;

  constructor(readonly input: Uint8Array) {}

  get left(): number {
    return this.input.length - this.#at;
  }

  byte(): number {
    return this.input[this.#at++] ?? 0;
  }

  bytes(length: number): Uint8Array {
    const taken = this.input.subarray(this.#at, this.#at + length);
    this.#at += length;
    return taken;
  }
}

function answerOf(input: Uint8Array): { answer: RawAnswer; ports: Set<number>; mustFind: boolean } {
  const choices = new Choices(input);
  const [how, often, code, garbage] = [choices.byte(), choices.byte(), choices.byte(), choices.byte()];
  const records: MadeRecord[] = [];
  while (choices.left > 0) records.push(recordOf(choices));
  const repeated = Array.from({ length: REPEATED[often % REPEATED.length]! }, () => records).flat();
  const sent: MadeRecord[] = [];
  let length = 0;
  for (const record of repeated) {
    if ((length += record.bytes.length) > MESSAGE_BYTES_MAX) break;
    sent.push(record);
  }
  const ports = new Set(sent.flatMap(({ port }) => port === null ? [] : [port]));
  const body = concat(...sent.map(({ bytes }) => bytes));
  const answer: RawAnswer = {
    before: garbage % 4 === 0 ? [] : [input.subarray(HOW_BYTES, HOW_BYTES + garbage)],
    flags: [0x81, 0x80 | code & 15],
    count: sent.length,
    body,
    overTcp: how % 4 === 0 || body.length > DATAGRAM_BYTES_MAX,
  };
  const plain = sent.every(({ fits }) => fits) && (code & 15) === 0 && garbage % 4 === 0;
  return { answer, ports, mustFind: plain && ports.size > 0 };
}

function recordOf(choices: Choices): MadeRecord {
  const kind = KINDS[choices.byte() % KINDS.length]!;
  const owner = OWNERS[choices.byte() % OWNERS.length]!;
  if (kind === A) return { bytes: record(owner, kind, choices.bytes(4)), port: null, fits: false };
  if (kind === CNAME) return { bytes: record(owner, kind, Uint8Array.of(0xc0, 12)), port: null, fits: false };
  if (kind === TXT) {
    const text = choices.bytes(choices.byte());
    return { bytes: record(owner, kind, Uint8Array.of(text.length, ...text)), port: null, fits: false };
  }
  const numbers = Uint8Array.from({ length: 6 }, () => choices.byte());
  const port = numbers[4]! << 8 | numbers[5]!;
  const target = nameOf(choices);
  const isPlace = port > 0 && target.length > 1;
  return {
    bytes: record(owner, SRV, concat(numbers, target)),
    port: isPlace ? port : null,
    fits: isPlace && owner.length === 2,
  };
}

/** Labels of any bytes, as many as a name may have; ends with the root. */
function nameOf(choices: Choices): Uint8Array {
  const labels: Uint8Array[] = [];
  let room = NAME_BYTES_MAX - 1;
  for (let left = choices.byte() % 9; left > 0; left--) {
    const label = choices.bytes(choices.byte() % (LABEL_BYTES_MAX + 1));
    room -= 1 + label.length;
    if (label.length === 0 || room < 0) break;
    labels.push(concat(Uint8Array.of(label.length), label));
  }
  return concat(...labels, new Uint8Array(1));
}

/** Class IN, 60 s to live. */
function record(owner: readonly number[], kind: number, data: Uint8Array): Uint8Array {
  const fields = [0, kind, 0, 1, 0, 0, 0, 60, data.length >> 8, data.length & 255];
  return concat(Uint8Array.from([...owner, ...fields]), data);
}

function randomAnswer(random: Random): Uint8Array {
  const how = Uint8Array.of(
    random.below(256),
    random.below(REPEATED.length),
    random.oneIn(8) ? random.below(16) : 0,
    random.oneIn(20) ? random.below(256) : 0,
  );
  return concat(how, ...random.list(20, () => randomRecord(random)));
}

/** As recordOf() reads it: mostly a place. */
function randomRecord(random: Random): Uint8Array {
  const kind = random.oneIn(6) ? random.below(256) : 0;
  const owner = random.oneIn(12) ? random.below(256) : 0;
  const labels = random.list(
    8,
    () => random.oneIn(4) ? random.bytes(random.length(64)) : random.pick(LABELS),
  );
  const name = labels.map((label) => concat(Uint8Array.of(label.length), label));
  const numbers = random.oneIn(3)
    ? random.bytes(6)
    : Uint8Array.of(0, random.below(3), 0, random.below(3), 27, 89);
  return concat(Uint8Array.of(kind, owner), numbers, Uint8Array.of(labels.length), ...name);
}
