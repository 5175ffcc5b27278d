/** Encrypted files: every size around a chunk's end, every way of tampering, ranges, and files on disk. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { type Bytes, concat, fromHex, hex, randomBytes, sha256, utf8 } from "../../../mod/base/bytes.ts";
import {
  decryptFile,
  decryptFileTo,
  decryptRange,
  encryptFile,
  encryptFileTo,
  FileCryptoError,
  fileRange,
  newFileCipher,
  sealedBytes,
} from "../../../mod/client/file_crypto.ts";

async function* inParts(bytes: Uint8Array, partBytes = 7): AsyncGenerator<Uint8Array> {
  for (let offset = 0; offset < bytes.length; offset += partBytes) {
    yield bytes.subarray(offset, offset + partBytes);
  }
}

async function collect(source: AsyncIterable<Uint8Array>): Promise<Bytes> {
  return concat(...await Array.fromAsync(source));
}

const CHUNK = 16;
const SEALED_CHUNK = CHUNK + 16;

Deno.test("encryptFile() and decryptFile() agree for every size around the ends of chunks", async () => {
  for (const size of [0, 1, 15, 16, 17, 31, 32, 33, 48, 100]) {
    const plaintext = randomBytes(size);
    const cipher = newFileCipher(CHUNK);
    const ciphertext = await collect(encryptFile(inParts(plaintext), cipher));
    assert.equal(ciphertext.length, sealedBytes(size, CHUNK), `size ${size}`);
    for (const partBytes of [1, 13, 1000]) {
      const opened = await collect(decryptFile(inParts(ciphertext, partBytes), { ...cipher, size }));
      assert.equal(hex(opened), hex(plaintext), `size ${size}`);
    }
  }
});

Deno.test("encryptFile() makes the documented bytes", async () => {
  const key = fromHex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
  const ciphertext = await collect(
    encryptFile(inParts(utf8("sixteen bytes ok, more")), { key, chunkBytes: CHUNK }),
  );
  const imported = await crypto.subtle.importKey("raw", key, "AES-GCM", false, ["decrypt"]);
  const additionalData = concat(utf8("qpq/1 file"), fromHex("00000010"));
  const open = async (iv: string, bytes: Bytes) =>
    new TextDecoder().decode(
      await crypto.subtle.decrypt({ name: "AES-GCM", iv: fromHex(iv), additionalData }, imported, bytes),
    );
  assert.equal(await open("000000000000000000000000", ciphertext.slice(0, SEALED_CHUNK)), "sixteen bytes ok");
  assert.equal(await open("000000000000000000000101", ciphertext.slice(SEALED_CHUNK)), ", more");
});

Deno.test("decryptFile() refuses what was cut, extended, reordered, repeated or changed", async () => {
  const size = 3 * CHUNK;
  const cipher = newFileCipher(CHUNK);
  const ciphertext = await collect(encryptFile(inParts(randomBytes(size)), cipher));
  const [a, b, c] = [0, 1, 2].map((index) =>
    ciphertext.slice(index * SEALED_CHUNK, (index + 1) * SEALED_CHUNK)
  );
  const wrong: Record<string, Uint8Array> = {
    empty: new Uint8Array(0),
    "last chunk missing": concat(a!, b!),
    "first chunk missing": concat(b!, c!),
    swapped: concat(b!, a!, c!),
    repeated: concat(a!, a!, b!, c!),
    "last chunk repeated": concat(a!, b!, c!, c!),
    "one byte missing": ciphertext.slice(0, -1),
    "one byte more": concat(ciphertext, new Uint8Array(1)),
  };
  for (let index = 0; index < ciphertext.length; index += 5) {
    wrong[`byte ${index} changed`] = ciphertext.with(index, ciphertext[index]! ^ 1);
  }
  for (const [what, bytes] of Object.entries(wrong)) {
    await assert.rejects(collect(decryptFile(inParts(bytes), { ...cipher, size })), FileCryptoError, what);
  }
  for (const otherSize of [size - 1, size + 1, size - CHUNK, size + CHUNK]) {
    const opening = collect(decryptFile(inParts(ciphertext), { ...cipher, size: otherSize }));
    await assert.rejects(opening, FileCryptoError, `announced size ${otherSize}`);
  }
  const otherKey = { key: randomBytes(32), chunkBytes: CHUNK, size };
  await assert.rejects(collect(decryptFile(inParts(ciphertext), otherKey)), FileCryptoError);
});

Deno.test("fileRange() and decryptRange() give every part of a file from its chunks alone", async () => {
  const size = 50;
  const plaintext = randomBytes(size);
  const cipher = newFileCipher(CHUNK);
  const ciphertext = await collect(encryptFile(inParts(plaintext), cipher));
  for (let offset = 0; offset < size; offset++) {
    for (let length = 1; offset + length <= size; length++) {
      const range = fileRange({ size, chunkBytes: CHUNK }, { offset, length });
      const end = range.ciphertextOffset + range.ciphertextBytes;
      const part = inParts(ciphertext.subarray(range.ciphertextOffset, end));
      const opened = await collect(decryptRange(part, { cipher: { ...cipher, size }, range }));
      assert.equal(hex(opened), hex(plaintext.subarray(offset, offset + length)), `${length} at ${offset}`);
    }
  }
  assert.throws(() => fileRange({ size, chunkBytes: CHUNK }, { offset: 49, length: 2 }), RangeError);
});

Deno.test("decryptRange() refuses a range of other chunks", async () => {
  const size = 64;
  const cipher = newFileCipher(CHUNK);
  const ciphertext = await collect(encryptFile(inParts(randomBytes(size)), cipher));
  const range = fileRange({ size, chunkBytes: CHUNK }, { offset: 16, length: 16 });
  const other = inParts(ciphertext.subarray(0, SEALED_CHUNK));
  await assert.rejects(collect(decryptRange(other, { cipher: { ...cipher, size }, range })), FileCryptoError);
});

Deno.test("encryptFileTo() and decryptFileTo() pass a file through the disk, and leave nothing behind on failure", async () => {
  const folder = await Deno.makeTempDir({ prefix: "qpq-files-" });
  try {
    const [sealed, opened] = [join(folder, "sealed"), join(folder, "opened")];
    const plaintext = randomBytes(1_000_000 - 3);
    const cipher = newFileCipher();
    const made = await encryptFileTo(sealed, inParts(plaintext, 65_536), cipher);
    const ciphertext = await Deno.readFile(sealed);
    assert.equal(made.size, plaintext.length);
    assert.equal(made.ciphertextBytes, sealedBytes(plaintext.length));
    assert.equal(hex(made.sha256), hex(await sha256(ciphertext)));
    assert.equal((await Deno.stat(sealed)).mode! & 0o777, 0o600);

    const broken = ciphertext.with(900_000, ciphertext[900_000]! ^ 1);
    const size = plaintext.length;
    await assert.rejects(
      decryptFileTo(opened, inParts(broken, 65_536), { ...cipher, size }),
      FileCryptoError,
    );
    assert.deepEqual(Array.from(Deno.readDirSync(folder), (entry) => entry.name), ["sealed"]);

    let progress = 0;
    const onProgress = (bytes: number) => progress = bytes;
    await decryptFileTo(opened, inParts(ciphertext, 65_536), { ...cipher, size, onProgress });
    assert.equal(hex(await sha256(await Deno.readFile(opened))), hex(await sha256(plaintext)));
    assert.equal(progress, size);
    const again = decryptFileTo(opened, inParts(ciphertext, 65_536), { ...cipher, size });
    await assert.rejects(again, Deno.errors.AlreadyExists);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
