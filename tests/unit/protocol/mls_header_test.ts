/** mls_header.ts against the official MLS vectors, ts-mls' decoder, truncation and random bytes. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { decodeMlsMessage } from "ts-mls/message.js";
import { concat, fromHex, hex, utf8 } from "../../../mod/base/bytes.ts";
import { type MlsHeader, parseMlsMessage } from "../../../mod/protocol/mls_header.ts";
// From the vectors of the MLS working group (github.com/mlswg/mls-implementations), trimmed.
import vectors from "../../fixtures/mls/messages.json" with { type: "json" };

/** Every message of the vectors. */
const MESSAGES = vectors.flatMap((vector) => Object.entries(vector)).map(([name, text]) => ({
  name,
  bytes: fromHex(text),
}));

/** What ts-mls sees, in our words; null when it refuses. */
function byTsMls(bytes: Uint8Array): MlsHeader | null {
  let decoded: ReturnType<typeof decodeMlsMessage>;
  try {
    decoded = decodeMlsMessage(bytes, 0);
  } catch {
    return null;
  }
  if (!decoded) return null;
  const [message] = decoded;
  switch (message.wireformat) {
    case "mls_private_message": {
      const { groupId, epoch, contentType } = message.privateMessage;
      return { kind: "privateMessage", groupId, epoch: Number(epoch), contentType };
    }
    case "mls_public_message": {
      const { groupId, epoch, contentType, sender } = message.publicMessage.content;
      const { senderType } = sender;
      return { kind: "publicMessage", groupId, epoch: Number(epoch), contentType, senderType };
    }
    case "mls_welcome": {
      const keyPackageRefs = message.welcome.secrets.map((secret) => secret.newMember);
      const suite = new DataView(bytes.buffer, bytes.byteOffset).getUint16(4);
      return { kind: "welcome", suite, keyPackageRefs };
    }
    case "mls_group_info":
      return { kind: "groupInfo" };
    case "mls_key_package":
      return { kind: "keyPackage" };
  }
}

/** A PrivateMessage whose parts can be chosen. */
function privateMessage(parts: { groupId: Uint8Array; epoch: bigint; contentType?: number }): Uint8Array {
  const epoch = new Uint8Array(8);
  new DataView(epoch.buffer).setBigUint64(0, parts.epoch);
  return concat(
    fromHex("00010002"),
    parts.groupId,
    epoch,
    Uint8Array.of(parts.contentType ?? 3),
    fromHex("000000"),
  );
}

Deno.test("parseMlsMessage() sees in every official message what ts-mls sees", () => {
  const kinds = new Set<string>();
  for (const { name, bytes } of MESSAGES) {
    const header = parseMlsMessage(bytes);
    assert.ok(header, name);
    assert.deepEqual(header, byTsMls(bytes), name);
    kinds.add("contentType" in header ? `${header.kind} ${header.contentType}` : header.kind);
  }
  assert.deepEqual([...kinds].sort(), [
    "groupInfo",
    "keyPackage",
    "privateMessage application",
    "privateMessage commit",
    "privateMessage proposal",
    "publicMessage application",
    "publicMessage commit",
    "publicMessage proposal",
    "welcome",
  ]);
});

Deno.test("parseMlsMessage() takes no PrivateMessage and no Welcome that is cut off anywhere", () => {
  for (const { name, bytes } of MESSAGES) {
    if (name !== "private_message" && name !== "mls_welcome") continue;
    for (let length = 0; length < bytes.length; length++) {
      assert.equal(parseMlsMessage(bytes.subarray(0, length)), null, `${name} at ${length}`);
    }
  }
});

Deno.test("parseMlsMessage() gives the true header of a PublicMessage that is cut off, or none", () => {
  for (const { name, bytes } of MESSAGES) {
    if (!name.startsWith("public_message")) continue;
    const whole = parseMlsMessage(bytes);
    for (let length = 0; length < bytes.length; length++) {
      const header = parseMlsMessage(bytes.subarray(0, length));
      if (header) assert.deepEqual(header, whole, `${name} at ${length}`);
    }
  }
});

Deno.test("parseMlsMessage() reads only inside the given view", () => {
  for (const { bytes } of MESSAGES) {
    const surrounded = concat(utf8("before"), bytes, utf8("after"));
    const view = surrounded.subarray(6, 6 + bytes.length);
    assert.deepEqual(parseMlsMessage(view), parseMlsMessage(bytes));
  }
});

Deno.test("parseMlsMessage() never throws, and whatever ts-mls can read it reads alike", () => {
  const start = fc.constantFrom(...["00010001", "00010002", "00010003", "00010004", "00010005", "0001", ""]);
  fc.assert(
    fc.property(start, fc.uint8Array({ maxLength: 200 }), (prefix, rest) => {
      const bytes = concat(fromHex(prefix), rest);
      agree(bytes);
    }),
    { numRuns: 2000 },
  );
});

Deno.test("parseMlsMessage() sees in damaged messages whatever ts-mls still sees", () => {
  const message = fc.constantFrom(...MESSAGES);
  fc.assert(
    fc.property(message, fc.nat(), fc.integer({ min: 1, max: 255 }), ({ bytes }, at, change) => {
      const damaged = new Uint8Array(bytes);
      // Mostly in the header, where it matters.
      const index = at % (at % 4 === 0 ? bytes.length : Math.min(60, bytes.length));
      damaged[index] = damaged[index]! ^ change;
      agree(damaged);
    }),
    { numRuns: 2000 },
  );
});

/** No client may see a message (above all a commit) that the server does not see. */
function agree(bytes: Uint8Array): void {
  const ours = parseMlsMessage(bytes);
  const theirs = byTsMls(bytes);
  if (!theirs || ("epoch" in theirs && theirs.epoch > 2 ** 53)) return;
  assert.deepEqual(ours, theirs, hex(bytes));
}

Deno.test("parseMlsMessage() reads lengths that are not minimal, as lenient clients do", () => {
  for (const prefix of ["03", "4003", "80000003"]) {
    const bytes = privateMessage({ groupId: concat(fromHex(prefix), utf8("abc")), epoch: 7n });
    const header = parseMlsMessage(bytes);
    assert.ok(header?.kind === "privateMessage");
    assert.equal(hex(header.groupId), hex(utf8("abc")));
    assert.equal(header.contentType, "commit");
  }
});

Deno.test("parseMlsMessage() refuses lengths with the reserved prefix", () => {
  const bytes = privateMessage({ groupId: concat(fromHex("c000000000000003"), utf8("abc")), epoch: 7n });
  assert.equal(parseMlsMessage(bytes), null);
});

Deno.test("parseMlsMessage() gives epochs up to 2^53 and none that a number cannot hold", () => {
  const epochOf = (epoch: bigint) => {
    const header = parseMlsMessage(privateMessage({ groupId: fromHex("0161"), epoch }));
    return header?.kind === "privateMessage" ? header.epoch : null;
  };
  assert.equal(epochOf(0n), 0);
  assert.equal(epochOf(2n ** 32n + 5n), 2 ** 32 + 5);
  assert.equal(epochOf(2n ** 53n), 2 ** 53);
  assert.equal(epochOf(2n ** 53n + 1n), null);
  assert.equal(epochOf(2n ** 64n - 1n), null);
});

Deno.test("parseMlsMessage() refuses other versions, wire formats and content types", () => {
  const good = privateMessage({ groupId: fromHex("0161"), epoch: 1n });
  assert.ok(parseMlsMessage(good));
  for (const [index, value] of [[1, 2], [0, 1], [3, 0], [3, 6]] as const) {
    const bad = new Uint8Array(good);
    bad[index] = value;
    assert.equal(parseMlsMessage(bad), null);
  }
  for (const contentType of [0, 4, 255]) {
    assert.equal(parseMlsMessage(privateMessage({ groupId: fromHex("0161"), epoch: 1n, contentType })), null);
  }
});

Deno.test("parseMlsMessage() names all welcomed KeyPackages of a Welcome", () => {
  const secret = (ref: string) => concat(fromHex(ref), fromHex("0101"), fromHex("0102"));
  const secrets = concat(secret("02aabb"), secret("02ccdd"));
  const bytes = concat(fromHex("000100030001"), Uint8Array.of(secrets.length), secrets, fromHex("00"));
  const header = parseMlsMessage(bytes);
  assert.ok(header?.kind === "welcome");
  assert.deepEqual(header.keyPackageRefs.map(hex), ["aabb", "ccdd"]);
});
