/** Contents of messages: what is made is read back; what others made is checked. */
import assert from "node:assert/strict";
import { create, toBinary } from "@bufbuild/protobuf";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { concat, fromHex, hex, randomBytes } from "../../../mod/base/bytes.ts";
import {
  decodeContent,
  encodeContent,
  type FileReference,
  printableText,
  safeFileName,
} from "../../../mod/client/content.ts";
import { ContentSchema } from "../../../mod/client/content_pb.ts";

function file(options: Partial<FileReference> = {}): FileReference {
  return {
    blobSha256: randomBytes(32),
    key: randomBytes(32),
    chunkBytes: 65_536,
    size: 5_000_000_000,
    name: "photo.jpg",
    mediaType: "image/jpeg",
    expiresAtMs: 1_800_000_000_000,
    ...options,
  };
}

Deno.test("encodeContent() and decodeContent() agree on texts and files", () => {
  const text = { kind: "text" as const, sentAtMs: 1_795_000_000_000, text: "grüß dich 👋" };
  assert.deepEqual(decodeContent(encodeContent(text)), text);
  for (const sent of [file(), file({ domain: "b.test" })]) {
    const content = { kind: "file" as const, sentAtMs: 1, file: sent };
    assert.deepEqual(decodeContent(encodeContent(content)), content);
  }
});

Deno.test("decodeContent() leaves out what is no domain", () => {
  const bytes = encodeContent({ kind: "file", sentAtMs: 1, file: file({ domain: "B.test/x" }) });
  const content = decodeContent(bytes);
  assert.ok(content.kind === "file");
  assert.equal("domain" in content.file, false);
});

Deno.test("encodeContent() makes the documented bytes", () => {
  const bytes = encodeContent({ kind: "text", sentAtMs: 300, text: "hi" });
  assert.equal(hex(bytes), "08ac02" + "1204" + "0a026869");
});

Deno.test("decodeContent() shows a kind it does not know as unsupported", () => {
  assert.deepEqual(decodeContent(concat(fromHex("08ac02"), fromHex("7a03010203"))), {
    kind: "unsupported",
    sentAtMs: 300,
  });
});

Deno.test("decodeContent() never throws, whatever the bytes", () => {
  const whole = encodeContent({ kind: "file", sentAtMs: 1, file: file() });
  for (let length = 0; length < whole.length; length++) decodeContent(whole.subarray(0, length));
  for (let round = 0; round < 500; round++) decodeContent(randomBytes(round % 60));
  assert.equal(decodeContent(fromHex("ffff")).kind, "unsupported");
});

Deno.test("decodeContent() takes no file with a wrong hash, key, chunk or size", () => {
  const wrong: Partial<FileReference>[] = [
    { blobSha256: randomBytes(31) },
    { key: randomBytes(16) },
    { chunkBytes: 0 },
    { chunkBytes: (16 << 20) + 1 },
  ];
  for (const options of wrong) {
    const bytes = encodeContent({ kind: "file", sentAtMs: 1, file: file(options) });
    assert.equal(decodeContent(bytes).kind, "unsupported", Object.keys(options)[0]);
  }
  const value = { ...file(), size: 2n ** 60n, expiresAtMs: 0n };
  const huge = toBinary(ContentSchema, create(ContentSchema, { body: { case: "file", value } }));
  assert.equal(decodeContent(huge).kind, "unsupported");
});

Deno.test("decodeContent() makes file names and media types of others harmless", () => {
  const bytes = encodeContent({
    kind: "file",
    sentAtMs: 1,
    file: file({ name: "../../.ssh/id", mediaType: "a\nb" }),
  });
  const content = decodeContent(bytes);
  assert(content.kind === "file");
  assert.equal(content.file.name, "id");
  assert.equal(content.file.mediaType, "application/octet-stream");
});

Deno.test("safeFileName() leaves good names and turns bad ones into names that can be created", () => {
  const names: Record<string, string> = {
    "photo.jpg": "photo.jpg",
    "späte Grüße.txt": "späte Grüße.txt",
    "": "file",
    "..": "file",
    "/": "file",
    ".bashrc": "bashrc",
    "a/b\\c.txt": "c.txt",
    "a\u0000b\u001b[31m.txt": "ab[31m.txt",
    "gpj.\u202eexe": "gpj.exe",
    "CON.txt": "_CON.txt",
    "what?*.txt": "what__.txt",
  };
  for (const [given, expected] of Object.entries(names)) assert.equal(safeFileName(given), expected, given);
  const long = safeFileName("ü".repeat(300) + ".tar");
  assert(new TextEncoder().encode(long).length <= 255);
  assert(long.endsWith("ü.tar"));
});

Deno.test("printableText() lets no control sequence through", () => {
  assert.equal(printableText("a\u001b[2Jb\u202ec\td\ne\u009bf"), "a\ufffd[2Jb\ufffdc\td\ne\ufffdf");
});

Deno.test("content_pb.ts is what generate.ts makes of content.proto", async () => {
  const out = await Deno.makeTempDir({ prefix: "qpq-generate-" });
  try {
    const script = fileURLToPath(new URL("../../../mod/protocol/generate.ts", import.meta.url));
    const committed = new URL("../../../mod/client/content_pb.ts", import.meta.url);
    const { code } = await new Deno.Command(Deno.execPath(), { args: ["run", "-A", script, out] }).output();
    assert.equal(code, 0);
    assert.equal(await Deno.readTextFile(join(out, "content_pb.ts")), await Deno.readTextFile(committed));
  } finally {
    await Deno.remove(out, { recursive: true });
  }
});
