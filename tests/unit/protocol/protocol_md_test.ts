/** PROTOCOL.md says what the program does: frames in both directions, vectors, tables, and the page's frames at a real server. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { xchacha20poly1305 } from "@noble/ciphers/chacha.js";
import * as opaque from "@serenity-kit/opaque";
import {
  concat,
  copy,
  fromBase64url,
  fromHex,
  hex,
  randomBytes,
  sha256,
  utf8,
  utf8Text,
} from "../../../mod/base/bytes.ts";
import { ERRORS } from "../../../mod/base/errors.ts";
import type { AccountId } from "../../../mod/base/ids.ts";
import { MLS_SUITES } from "../../../mod/base/mls_suites.ts";
import { CLIENT_KEY_STRETCHING, OPAQUE_BYTES } from "../../../mod/base/opaque_suite.ts";
import { type SignatureLabel, signContent, verifyWithLabel } from "../../../mod/base/sign_with_label.ts";
import { USER_NAME_CHARACTERS_MAX } from "../../../mod/base/user_name.ts";
import { safetyNumber, signWithLabel, unwrapAccountKey } from "../../../mod/client/account_keys.ts";
import { DEVICE_NAME_CHARACTERS_MAX } from "../../../mod/auth/logins.ts";
import { PENDING_PER_CONNECTION_MAX } from "../../../mod/auth/pending.ts";
import { WRAPPED_ACCOUNT_KEY_BYTES_MAX } from "../../../mod/auth/registration.ts";
import { KEY_PACKAGE_BYTES_MAX } from "../../../mod/delivery/keypackages.ts";
import { CLOSE_CODES } from "../../../mod/protocol/close_codes.ts";
import { CODE_OK, FRAME_BODY_BYTES_MAX, FrameDecoder } from "../../../mod/protocol/frame.ts";
import { METHODS } from "../../../mod/protocol/methods.ts";
import { parseMlsMessage } from "../../../mod/protocol/mls_header.ts";
import { connect } from "../../../mod/transport/deno_quic.ts";
import { parseFingerprint } from "../../../mod/transport/fingerprint.ts";
import type { Stream } from "../../../mod/transport/transport.ts";
import {
  decodeExample,
  encodeExample,
  type Example,
  examplesOf,
  type PlainMessage,
  readPage,
  tableOf,
  vectorOf,
} from "../../support/protocol_page.ts";
import { requestFrame } from "../../support/raw_stream.ts";
import { newAccount } from "../../support/test_client.ts";
import { startTestServer } from "../../support/test_server.ts";

const PAGE = readPage();
const EXAMPLES = examplesOf(PAGE);

function exampleOf(kind: Example["kind"], method: Example["method"], variant = ""): Example {
  const found = EXAMPLES.find((one) => one.kind === kind && one.method === method && one.variant === variant);
  assert.ok(found, `The page has no example ${kind} ${method} ${variant}`);
  return found;
}

function nameOf({ kind, method, variant }: Example): string {
  return `${kind} ${method} ${variant}`.trim();
}

Deno.test("PROTOCOL.md shows frames of every kind, each under its own name", () => {
  const names = EXAMPLES.map(nameOf);
  assert.equal(new Set(names).size, names.length, "two examples have one name");
  assert.equal(PAGE.match(/^```hex /gm)?.length, names.length, "a block of hex has no JSON behind it");
  const wanted = ["hello", "ping", "enqueue", "fetch", "ack", "subscribe", "putBlob", "getBlob"];
  for (const method of wanted) {
    assert.ok(names.includes(`request ${method}`) && names.includes(`response ${method}`), method);
  }
  assert.ok(EXAMPLES.some((one) => one.kind === "error") && EXAMPLES.some((one) => one.kind === "push"));
});

for (const example of EXAMPLES) {
  Deno.test(`PROTOCOL.md: ${nameOf(example)} is the same in hex and in JSON`, () => {
    assert.deepEqual(decodeExample(example), example.frame);
    assert.equal(hex(encodeExample(example)), hex(example.bytes));
  });

  Deno.test(`PROTOCOL.md: ${nameOf(example)} has the code of its method or error`, () => {
    const { kind, method, variant, frame } = example;
    if (kind === "request") assert.equal(frame.code, METHODS[method].number);
    else if (kind !== "error") assert.equal(frame.code, CODE_OK);
    else {
      const row = ERRORS[variant.split(" ")[0] as keyof typeof ERRORS];
      assert.equal(frame.code, row.number);
      assert.equal(frame.body["text"], row.text);
    }
  });
}

Deno.test("PROTOCOL.md: the guarded Enqueue holds one commit that its guard agrees with", async () => {
  const { parts, guard } = exampleOf("request", "enqueue", "guarded").frame.body as {
    parts: { payload: string }[];
    guard: { group_id: string; epoch: number; token: string; next_token_sha256: string };
  };
  const headers = parts.map(({ payload }) => parseMlsMessage(fromHex(payload)));
  const [commit, welcome] = headers;
  assert.ok(commit?.kind === "privateMessage" && commit.contentType === "commit");
  assert.equal(welcome?.kind, "welcome");
  assert.equal(hex(commit.groupId), guard.group_id);
  assert.equal(commit.epoch, guard.epoch);
  const vector = vectorOf(PAGE, "commit-guard");
  assert.equal(guard.token, vector["token"]);
  assert.equal(guard.next_token_sha256, vector["next_token_sha256"]);
  assert.equal(hex(await sha256(fromHex(vector["token"]!))), vector["token_sha256"]);
  assert.equal(hex(await sha256(fromHex(vector["next_token"]!))), vector["next_token_sha256"]);
});

Deno.test("PROTOCOL.md: the blob of the examples has the hash they name, and its range is right", async () => {
  const put = exampleOf("request", "putBlob").frame;
  const blob = fromHex(put.behind!);
  assert.equal(put.body["sha256"], hex(await sha256(blob)));
  assert.equal(put.body["size"], blob.length);
  const [asked, got] = [exampleOf("request", "getBlob").frame, exampleOf("response", "getBlob").frame];
  assert.equal(got.behind, hex(blob.subarray(asked.body["offset"] as number)));
  assert.equal(got.body["length"], got.behind!.length / 2);
});

Deno.test("PROTOCOL.md: the table of methods is METHODS", () => {
  const rows = Object.entries(METHODS).map(([name, row]) => [
    ...[String(row.number), name, row.access, row.stream, String(row.bytesMax)],
    ...[row.request.name, row.response.name, row.rate],
  ]);
  assert.deepEqual(tableOf(PAGE, "Number", "Method"), rows);
});

Deno.test("PROTOCOL.md: every method is explained", () => {
  for (const name of Object.keys(METHODS)) assert.match(PAGE, new RegExp(`\\*\\*${name}\\*\\*`), name);
});

Deno.test("PROTOCOL.md: the table of errors is ERRORS", () => {
  const rows = Object.entries(ERRORS).map(([name, { number, text }]) => [String(number), name, text]);
  assert.deepEqual(tableOf(PAGE, "Number", "Name", "Text"), rows);
});

Deno.test("PROTOCOL.md: the table of close codes is CLOSE_CODES", () => {
  const rows = tableOf(PAGE, "Code", "Name").map(([code, name]) => [name, Number(code)]);
  assert.deepEqual(Object.fromEntries(rows), CLOSE_CODES);
});

Deno.test("PROTOCOL.md: the table of suites is MLS_SUITES", () => {
  const rows = tableOf(PAGE, "Suite", "Name").map(([number, name]) => [number, name!.split(" ")[0]]);
  assert.deepEqual(rows, Object.entries(MLS_SUITES).map(([number, { name }]) => [number, name]));
});

Deno.test("PROTOCOL.md: fixed bounds are those of the program", () => {
  const bounds = new Map(tableOf(PAGE, "What", "Bound").map(([what, bound]) => [what!, parseInt(bound!)]));
  assert.equal(bounds.get("device name"), DEVICE_NAME_CHARACTERS_MAX);
  assert.equal(bounds.get("wrapped account key"), WRAPPED_ACCOUNT_KEY_BYTES_MAX);
  assert.equal(bounds.get("KeyPackage"), KEY_PACKAGE_BYTES_MAX);
  assert.equal(bounds.get("user name"), USER_NAME_CHARACTERS_MAX);
  const exchanges = "open exchanges of a connection (register, login, change password)";
  assert.equal(bounds.get(exchanges), PENDING_PER_CONNECTION_MAX);
  assert.ok(PAGE.includes(`${FRAME_BODY_BYTES_MAX.toLocaleString("en-US")} bytes`));
});

Deno.test("PROTOCOL.md: sizes of OPAQUE messages are those of the program", () => {
  const [, sizes] = /Sizes: (.*?) bytes\./.exec(PAGE.replace(/\s+/g, " "))!;
  const { serverSetup: _, ...onTheWire } = OPAQUE_BYTES;
  assert.deepEqual(sizes!.match(/\b\d{2,}\b/g)!.map(Number), Object.values(onTheWire));
});

for (const label of ["qpq device", "qpq resume", "qpq device key"] as const) {
  Deno.test(`PROTOCOL.md: the signature "${label}" is over these bytes`, async () => {
    const vector = vectorOf(PAGE, `sign ${label.replaceAll(" ", "-")}`);
    const { private_key_seed: seed, public_key: key, label: named, signed_bytes, signature, ...content } =
      vector;
    const parts = Object.values(content).map(fromHex);
    assert.equal(named, label);
    assert.equal(hex(signContent(label as SignatureLabel, ...parts)), signed_bytes);
    assert.equal(hex(await signWithLabel(fromHex(seed!), label, ...parts)), signature);
    assert.ok(await verifyWithLabel(fromHex(key!), fromHex(signature!), label, ...parts));
    const row = tableOf(PAGE, "Label", "Signed by").find(([name]) => name === label);
    const names = row![2]!.replaceAll("SHA-256 of the pinned leaf certificate", "leaf_sha256").match(
      /\w+_\w+/g,
    );
    assert.deepEqual(names, Object.keys(content));
  });
}

Deno.test("PROTOCOL.md: the device binding is this HMAC", async () => {
  const vector = vectorOf(PAGE, "device-binding");
  const { session_key, device_id, device_key, server_nonce, device_binding } = vector;
  const content = [device_id, device_key, server_nonce].map((part) => fromHex(part!));
  const mac = await hmac("SHA-256", fromHex(session_key!), concat(utf8("qpq/1 device"), ...content));
  assert.equal(hex(mac), device_binding);
});

Deno.test("PROTOCOL.md: OPAQUE's key stretching gives the library's masking key", async () => {
  await opaque.ready;
  const vector = vectorOf(PAGE, "key-stretching");
  const bytes = (name: string) => fromHex(vector[name]!);
  const base64 = (value: Uint8Array) => value.toBase64({ alphabet: "base64url", omitPadding: true });
  const { registrationRecord } = opaque.client.finishRegistration({
    password: vector["password"]!,
    clientRegistrationState: base64(concat(bytes("blind"), bytes("registration_request"))),
    registrationResponse: base64(bytes("registration_response")),
    identifiers: { server: "any realm" },
    keyStretching: CLIENT_KEY_STRETCHING,
  });
  assert.equal(hex(fromBase64url(registrationRecord).subarray(32, 96)), vector["masking_key"]);
  // HKDF-Extract without a salt: a key of zeros.
  const keyMaterial = concat(bytes("oprf_output"), bytes("stretched"));
  const randomized = await hmac("SHA-512", new Uint8Array(64), keyMaterial);
  assert.equal(hex(randomized), vector["randomized_password"]);
  const expanded = await hmac("SHA-512", randomized, concat(utf8("MaskingKey"), Uint8Array.of(1)));
  assert.equal(hex(expanded), vector["masking_key"]);
});

Deno.test("PROTOCOL.md: the wrapped account key opens, and is made as the page says", async () => {
  const vector = vectorOf(PAGE, "wrapped-account-key");
  const bytes = (name: string) => fromHex(vector[name]!);
  const { privateKey } = await unwrapAccountKey(bytes("wrapped_account_key"), {
    exportKey: bytes("export_key"),
    userName: vector["user_name"]!,
    publicKey: bytes("account_key"),
  });
  assert.equal(hex(privateKey), vector["private_key_seed"]);
  const base = await crypto.subtle.importKey("raw", bytes("export_key"), "HKDF", false, ["deriveBits"]);
  const info = utf8("qpq/1 account key wrap");
  const derive = { name: "HKDF", hash: "SHA-512", salt: new Uint8Array(0), info };
  const key = new Uint8Array(await crypto.subtle.deriveBits(derive, base, 256));
  const context = concat(utf8("qpq/1 account key"), bytes("account_key"), utf8(vector["user_name"]!));
  const sealed = xchacha20poly1305(key, bytes("nonce"), context).encrypt(bytes("private_key_seed"));
  assert.equal(hex(concat(Uint8Array.of(1), bytes("nonce"), sealed)), vector["wrapped_account_key"]);
});

Deno.test("PROTOCOL.md: the safety number is the client's", () => {
  const vector = vectorOf(PAGE, "safety-number");
  const one = { accountId: vector["account_id"] as AccountId, accountKey: fromHex(vector["account_key"]!) };
  const other = {
    accountId: vector["other_account_id"] as AccountId,
    accountKey: fromHex(vector["other_account_key"]!),
  };
  assert.equal(safetyNumber(one, other), vector["safety_number"]);
});

Deno.test("PROTOCOL.md: its frames, sent byte by byte, are answered by a server as it says", async () => {
  const dataDir = await Deno.makeTempDir({ prefix: "qpq-protocol-" });
  try {
    const token = exampleOf("request", "hello").frame.body["access_token"] as string;
    await Deno.mkdir(join(dataDir, "secrets"), { mode: 0o700 });
    await Deno.writeTextFile(join(dataDir, "secrets", "auth-token"), `${token}\n`, { mode: 0o600 });
    await using server = await startTestServer({ dataDir });
    await using connection = await connect({
      ...{ hostname: server.hostname, port: server.port, idleTimeoutMs: 30_000 },
      identity: { kind: "pinned", leafSha256: [parseFingerprint(server.fingerprint)!] },
    });
    await converse(await connection.openStream());
    await refusedBlob(await connection.openStream());
  } finally {
    await Deno.remove(dataDir, { recursive: true });
  }
});

Deno.test("PROTOCOL.md: pipelined Enqueues of one stream are accepted in their order", async () => {
  await using server = await startTestServer();
  await using alice = await newAccount(server, "alice");
  const sent = Array.from({ length: 200 }, (_, index) => String(index));
  await Promise.all(sent.map((text) => alice.enqueue([alice.deviceId], { payload: utf8(text) })));
  const { entries } = await alice.connection.call("fetch", {});
  assert.deepEqual(entries.map((entry) => utf8Text(entry.payload)), sent);
});

Deno.test("PROTOCOL.md: a device named in two parts gets two entries with one entry id, named twice in one part one", async () => {
  await using server = await startTestServer();
  await using alice = await newAccount(server, "alice");
  const to = alice.deviceId;
  const { statuses } = await alice.connection.call("enqueue", {
    messageId: randomBytes(16),
    parts: [{ payload: utf8("commit"), recipients: [to, to] }, {
      payload: utf8("welcome"),
      recipients: [to],
    }],
  });
  assert.equal(statuses.length, 3);
  const { entries } = await alice.connection.call("fetch", {});
  assert.deepEqual(entries.map((entry) => utf8Text(entry.payload)), ["commit", "welcome"]);
  assert.deepEqual(entries[0]!.entryId, entries[1]!.entryId);
});

Deno.test("PROTOCOL.md: what came before the client's FIN is answered, then the stream ends", async () => {
  await using server = await startTestServer();
  await using alice = await newAccount(server, "alice");
  const { stream } = await alice.rawStream();
  const asked = [1, 2, 3].map((id) => requestFrame(id, "ping", { echo: Uint8Array.of(id) }));
  await stream.write(concat(...asked));
  await stream.closeWrite();
  const decoder = new FrameDecoder(() => FRAME_BODY_BYTES_MAX);
  const answered: number[] = [];
  for (let chunk = await stream.read(); chunk; chunk = await stream.read()) {
    for (const { frame } of decoder.push(chunk)) answered.push(frame.requestId);
  }
  assert.deepEqual(answered.sort(), [1, 2, 3]);
});

/** Ping too early, Hello, Ping, Enqueue without a login. */
async function converse(stream: Stream): Promise<void> {
  const early = exampleOf("error", "ping", "helloRequired");
  assert.equal(hex(await ask(stream, exampleOf("request", "ping"))), hex(early.bytes));

  const shown = exampleOf("response", "hello");
  const hello = decodeExample({ ...shown, bytes: await ask(stream, exampleOf("request", "hello")) });
  assert.equal(hello.request_id, shown.frame.request_id);
  assert.equal(hello.code, CODE_OK);
  assert.deepEqual(Object.keys(hello.body), Object.keys(shown.frame.body));
  assert.deepEqual(hello.body["limits"], shown.frame.body["limits"]);
  assert.deepEqual(hello.body["limits"], limitsOfTable());
  for (const name of ["server_nonce", "store_incarnation", "realm_id"]) {
    assert.equal(String(hello.body[name]).length, String(shown.frame.body[name]).length, name);
  }

  const pong = exampleOf("response", "ping");
  const ping = decodeExample({ ...pong, bytes: await ask(stream, exampleOf("request", "ping")) });
  assert.equal(ping.body["echo"], pong.frame.body["echo"]);
  assert.ok(ping.body["server_time_ms"] as number >= (hello.body["server_time_ms"] as number));

  const refusal = decodeExample({
    kind: "error",
    method: "enqueue",
    bytes: await ask(stream, exampleOf("request", "enqueue")),
  });
  const { number, text } = ERRORS.loginRequired;
  assert.deepEqual(refusal, { request_id: 6, code: number, body: { text } });
}

/** An own stream without a login: one error frame, then the end. */
async function refusedBlob(stream: Stream): Promise<void> {
  const bytes = await ask(stream, exampleOf("request", "getBlob"));
  const refusal = decodeExample({ kind: "error", method: "getBlob", bytes });
  assert.equal(refusal.code, ERRORS.loginRequired.number);
  assert.equal(await stream.read(), null);
}

/** Sends an example a byte at a time; the bytes of the frame that comes back. */
async function ask(stream: Stream, example: Example): Promise<Uint8Array> {
  for (const byte of example.bytes) await stream.write(Uint8Array.of(byte));
  const decoder = new FrameDecoder(() => FRAME_BODY_BYTES_MAX);
  const received: Uint8Array[] = [];
  for (let chunk = await stream.read(); chunk; chunk = await stream.read()) {
    received.push(copy(chunk));
    for (const _ of decoder.push(chunk)) return concat(...received);
  }
  throw new Error(`The server ended the stream before an answer to ${nameOf(example)}`);
}

function limitsOfTable(): PlainMessage {
  return Object.fromEntries(
    tableOf(PAGE, "Field of limits", "Default").map(([field, value]) => [field!, Number(value)]),
  );
}

async function hmac(hash: "SHA-256" | "SHA-512", key: Uint8Array, content: Uint8Array): Promise<Uint8Array> {
  const imported = await crypto.subtle.importKey("raw", copy(key), { name: "HMAC", hash }, false, ["sign"]);
  return new Uint8Array(await crypto.subtle.sign("HMAC", imported, copy(content)));
}
