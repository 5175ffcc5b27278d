/** Headers and records: round trip, and every single change noticed. */
import { deepStrictEqual as equal } from "node:assert/strict";
import { randomBytes, utf8 } from "../../../../mod/base/bytes.ts";
import {
  decodeHeader,
  encodeHeader,
  type FileHeader,
  fileKeyOf,
  FORMAT_VERSION,
  HEADER_BYTES,
  keyFits,
  masterKeyOf,
} from "../../../../mod/store/file/header.ts";
import { Sealer } from "../../../../mod/store/file/record.ts";
import { createHash } from "node:crypto";
import { KEY } from "./support.ts";

const HEADER: FileHeader = {
  kind: "segment",
  keyKind: "raw",
  fileNumber: 7,
  firstBatch: 2 ** 40,
  storeId: randomBytes(16),
  fileSalt: randomBytes(32),
  scryptLogN: 15,
};
const BODY = utf8("the body of a record");
const PLACE = { batch: 5, offset: 1000 };

async function masterKey(text = KEY) {
  return (await masterKeyOf(text, HEADER))!;
}

Deno.test("a header comes back as it was written", async () => {
  const bytes = encodeHeader(HEADER, await masterKey());
  equal(bytes.length, HEADER_BYTES);
  equal(decodeHeader(bytes), HEADER);
  equal(keyFits(bytes, await masterKey()), true);
  equal(keyFits(bytes, await masterKey("f".repeat(64))), false);
});

Deno.test("a header with any bit flipped is damaged, and so is a short one", async () => {
  const bytes = encodeHeader(HEADER, await masterKey());
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const flipped = bytes.slice();
    flipped[bit >> 3]! ^= 1 << (bit & 7);
    equal(decodeHeader(flipped), "damaged", `bit ${bit}`);
  }
  equal(decodeHeader(bytes.subarray(0, HEADER_BYTES - 1)), "damaged");
});

Deno.test("a sound header of a later version is newerSchema", async () => {
  const bytes = encodeHeader(HEADER, await masterKey());
  new DataView(bytes.buffer).setUint16(8, FORMAT_VERSION + 1);
  bytes.set(createHash("sha256").update(bytes.subarray(0, 112)).digest().subarray(0, 16), 112);
  equal(decodeHeader(bytes), "newerSchema");
});

Deno.test("a key of another kind than the header's is none", async () => {
  equal(await masterKeyOf("words", HEADER), null);
  equal(await masterKeyOf("", HEADER), null);
});

for (const protection of ["encrypted", "checksummed"] as const) {
  const sealer = new Sealer(randomBytes(32), protection);

  Deno.test(`a record comes back as it was sealed (${protection})`, () => {
    const record = sealer.seal("commit", BODY, PLACE);
    const opened = sealer.open(record);
    equal(opened, { kind: "commit", ...PLACE, body: BODY, length: record.length });
    equal(sealer.open(sealer.seal("payload", new Uint8Array(0), PLACE))?.body.length, 0);
  });

  Deno.test(`a record with any bit flipped, cut or lengthened does not open (${protection})`, () => {
    const record = sealer.seal("commit", BODY, PLACE);
    for (let bit = 0; bit < record.length * 8; bit++) {
      const flipped = record.slice();
      flipped[bit >> 3]! ^= 1 << (bit & 7);
      equal(sealer.open(flipped), null, `bit ${bit}`);
    }
    for (let length = 0; length < record.length; length++) {
      equal(sealer.open(record.subarray(0, length)), null, `length ${length}`);
    }
    equal(sealer.open(new Uint8Array([...record, 0])), null);
  });

  Deno.test(`a record does not open in another file (${protection})`, () => {
    const record = sealer.seal("commit", BODY, PLACE);
    equal(new Sealer(randomBytes(32), protection).open(record), null);
  });
}

Deno.test("the same record sealed twice never has the same nonce", () => {
  const sealer = new Sealer(randomBytes(32), "encrypted");
  const nonces = Array.from({ length: 100 }, () => sealer.seal("rows", BODY, PLACE).subarray(28, 40).toHex());
  equal(new Set(nonces).size, 100);
});

Deno.test("each file has a key of its own", async () => {
  const first = encodeHeader(HEADER, await masterKey());
  const second = encodeHeader({ ...HEADER, fileNumber: 8 }, await masterKey());
  const keys = [fileKeyOf(first, await masterKey()), fileKeyOf(second, await masterKey())];
  equal(keys[0]!.toHex() === keys[1]!.toHex(), false);
});
