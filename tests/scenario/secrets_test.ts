/**
 * Planted secrets are nowhere: not in the log at its finest level, whatever goes wrong, not in the metrics, and no
 * plaintext of messages or names in any file of the data folder.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { join } from "node:path";
import Database from "better-sqlite3-multiple-ciphers";
import { randomBytes, sha256, utf8 } from "../../mod/base/bytes.ts";
import { login, makeDevice, register } from "../../mod/client/session.ts";
import { encodeFrame } from "../../mod/protocol/frame.ts";
import { METHODS } from "../../mod/protocol/methods.ts";
import { Program } from "../support/program.ts";
import { RawStream, requestFrame } from "../support/raw_stream.ts";
import { connectTo, type Reachable, TestClient, type TestLink } from "../support/test_client.ts";
import { tempFolder } from "../support/temp_folder.ts";

const TOKEN = "planted-access-token-5LQb";
const DB_KEY = "planted database passphrase 9wTz";
/** Never sent to the server, which is what OPAQUE is for; and a wrong one. */
const PASSWORD = "planted-password-Xu7w";
const WRONG_PASSWORD = "planted-wrong-password-Ck2r";
const WRONG_TOKEN = "planted-wrong-token-m3Fd";
const INVITATION = "planted-invitation-e8Pq";
const USER_NAME = "planted-user-name-h4yk";
const OTHER_NAME = "planted-nobody-v6sn";
const BAD_NAME = "Planted Bad Name! j9rt";
const DEVICE_NAME = "planted device name q2bm";
const PAYLOAD = "planted payload of a message t5ge";
const BLOB = "planted bytes of a blob w1xc";
const GARBAGE = "planted garbage in a frame a7lz";

const NEVER_LOGGED = [
  ...[TOKEN, DB_KEY, PASSWORD, WRONG_PASSWORD, WRONG_TOKEN, INVITATION, USER_NAME, OTHER_NAME, BAD_NAME],
  ...[DEVICE_NAME, PAYLOAD, BLOB, GARBAGE],
];
const NEVER_STORED = [PASSWORD, WRONG_PASSWORD, USER_NAME, OTHER_NAME, DEVICE_NAME, PAYLOAD, GARBAGE];

/** A text in every form in which it may lie around. */
function forms(text: string): Buffer[] {
  const bytes = Buffer.from(text);
  const others = [Buffer.from(text, "utf16le"), Buffer.from(text, "utf16le").swap16()];
  const encoded = [bytes.toString("hex"), bytes.toString("hex").toUpperCase(), bytes.toString("base64")];
  // Base64 of a part of something longer has other ends.
  const middles = [1, 2].map((skip) => bytes.subarray(skip).toString("base64"));
  const texts = [...encoded, ...middles].map((each) => Buffer.from(each.replace(/=+$/, "").slice(4, -4)));
  const url = bytes.toString("base64url").slice(4, -4);
  return [bytes, ...others, ...texts, Buffer.from(url)];
}

function found(secrets: readonly string[], bytes: Uint8Array): string[] {
  const haystack = Buffer.from(bytes);
  return secrets.filter((secret) => forms(secret).some((form) => haystack.includes(form)));
}

async function* filesBelow(path: string): AsyncGenerator<string> {
  for await (const entry of Deno.readDir(path)) {
    const name = join(path, entry.name);
    if (entry.isDirectory) yield* filesBelow(name);
    else if (entry.isFile) yield name;
  }
}

/** A server at its most talkative, with planted token and key. */
async function startTalkative(folder: string, backend: string) {
  for (const [name, text] of [["token", TOKEN], ["key", DB_KEY]] as const) {
    await Deno.writeTextFile(join(folder, name), text, { mode: 0o600 });
  }
  const program = new Program([
    ...["serve", "--listen", "127.0.0.1:0", "--opaque-workers", "1", "--log", "trace"],
    ...["--metrics-enabled", "--metrics-listen", "127.0.0.1:0", "--store-backend", backend],
    ...["--auth-token-file", join(folder, "token"), "--db-key-file", join(folder, "key")],
    ...["--limits-queue-depth-max", "40", "--limits-login-rate", "3", "--limits-devices-max", "2"],
    ...["--limits-blob-bytes-max", "1MiB", "--limits-blob-quota-bytes", "1MiB", "--limits-claim-rate", "1"],
  ], { cwd: folder });
  const port = Number((await program.logged(/"listen":"127\.0\.0\.1:(\d+)","version"/))[1]);
  const http = (await program.printed(/(http:\/\/127\.0\.0\.1:\d+)\//))[1]!;
  const fingerprint = (await program.printed(/([0-9a-f]{64})\n/))[1]!;
  const server: Reachable = { hostname: "127.0.0.1", port, fingerprint, accessToken: TOKEN };
  return { program, server, http };
}

async function loggedIn(link: TestLink): Promise<TestClient> {
  const device = await makeDevice(DEVICE_NAME);
  const { account, sessionId } = await login(link, { userName: USER_NAME, password: PASSWORD, device });
  return new TestClient(link, { account, device, sessionId });
}

/** Whatever a client can do wrong, each with something planted in it. Returns the errors' names. */
async function provokeErrors(server: Reachable, alice: TestClient): Promise<Set<string>> {
  const errors = new Set<string>();
  const failing = async (promise: Promise<unknown>) => {
    await promise.then(() => {}, (error) => errors.add(error.code ?? error.name));
  };
  const { connection } = alice;
  await failing(connectTo(server, { accessToken: WRONG_TOKEN }));
  await failing(connectTo(server, { accessToken: GARBAGE.repeat(40) }));
  await using guest = await connectTo(server).then((link) => Object.assign(link.connection, { link }));
  await failing(register(guest.link, { userName: USER_NAME, password: PASSWORD }));
  await failing(register(guest.link, { userName: "fresh", password: PASSWORD, invitation: INVITATION }));
  await failing(guest.call("registerStart", { userName: BAD_NAME, invitation: INVITATION, suiteId: 1 }));
  const device = await makeDevice(DEVICE_NAME);
  await failing(login(guest.link, { userName: OTHER_NAME, password: WRONG_PASSWORD, device }));
  for (let i = 0; i < 4; i++) {
    await failing(login(guest.link, { userName: USER_NAME, password: WRONG_PASSWORD, device }));
  }
  await failing(guest.call("loginStart", { userName: BAD_NAME, ke1: utf8(GARBAGE), suiteIds: [1] }));
  await failing(guest.call("loginFinish", { handle: 1, deviceName: DEVICE_NAME, ke3: utf8(GARBAGE) }));
  await failing(guest.call("resume", { sessionId: randomBytes(16), signature: utf8(GARBAGE) }));
  await failing(guest.call("enqueue", { messageId: randomBytes(16), parts: [{ payload: utf8(PAYLOAD) }] }));

  const payload = utf8(PAYLOAD);
  const messageId = randomBytes(16);
  await alice.enqueue([alice.deviceId], { payload, messageId });
  await failing(alice.enqueue([alice.deviceId], { payload: utf8(PAYLOAD + PAYLOAD), messageId }));
  for (let i = 0; i < 50; i++) await alice.enqueue([alice.deviceId, randomBytes(16)], { payload });
  await failing(alice.enqueue([utf8(GARBAGE)], { payload }));
  await failing(alice.enqueue([alice.deviceId], { payload: new Uint8Array(3 << 20).fill(payload[0]!) }));
  await failing(connection.call("ack", { through: 1000n }));
  await failing(connection.call("enqueue", {
    messageId: randomBytes(16),
    parts: [{ payload, recipients: [alice.deviceId] }],
    guard: { groupId: utf8(GARBAGE), epoch: 1n, token: randomBytes(32), nextTokenSha256: randomBytes(32) },
  }));
  await failing(connection.call("fetchKeyPackages", { userName: OTHER_NAME, suite: 1 }));
  await failing(connection.call("fetchKeyPackages", { userName: USER_NAME, suite: 1 }));
  await failing(connection.call("uploadKeyPackages", { keyPackages: [{ keyPackage: utf8(GARBAGE) }] }));
  await failing(connection.call("getAccount", { accountId: randomBytes(16) }));
  await failing(connection.call("signDevice", { accountSignature: utf8(GARBAGE) }));
  await failing(connection.call("revokeDevice", { deviceId: randomBytes(16) }));
  await failing(connection.call("deleteBlob", { sha256: randomBytes(32) }));
  await putBlob(alice, randomBytes(32)).then((code) => errors.add(code));
  assert.equal(await putBlob(alice, await sha256(utf8(BLOB))), "ok");
  await failing(connection.getBlob({ sha256: randomBytes(32) }));

  await using raw = await RawStream.afterHello(server);
  await raw.write(
    encodeFrame(2, 9999, utf8(GARBAGE)),
    encodeFrame(3, METHODS.loginStart.number, utf8(GARBAGE)),
    encodeFrame(4, METHODS.ping.number, utf8(GARBAGE.repeat(1000))),
    requestFrame(5, "hello", { accessToken: WRONG_TOKEN }),
    requestFrame(6, "subscribe", {}),
  );
  for (let i = 0; i < 5; i++) errors.add((await raw.reply()).outcome);
  await raw.write(utf8(GARBAGE));
  await raw.connection.closed;
  return errors;
}

/** Puts the planted blob under `sha256`, by hand: "ok" or the error's name. */
async function putBlob(client: TestClient, hash: Uint8Array): Promise<string> {
  const raw = await client.rawStream();
  const bytes = utf8(BLOB);
  await raw.write(requestFrame(1, "putBlob", { sha256: hash, size: BigInt(bytes.length) }), bytes);
  return (await raw.reply()).outcome;
}

for (const backend of ["sqlcipher", "file"]) {
  Deno.test(`no planted secret is in the log, the metrics or the data folder (${backend})`, async () => {
    await using folder = await tempFolder();
    const { program, server, http } = await startTalkative(folder.path, backend);
    await using _ = program;
    const link = await connectTo(server);
    await register(link, { userName: USER_NAME, password: PASSWORD });
    await using alice = await loggedIn(link);
    const errors = await provokeErrors(server, alice);
    // A fault of the operating system, whose message may hold anything.
    const blobs = join(folder.path, "data", "blobs");
    await Deno.rename(blobs, `${blobs}.away`);
    assert.equal(await putBlob(alice, await sha256(utf8(BLOB))), "storeUnavailable");
    await Deno.rename(`${blobs}.away`, blobs);
    assert.ok(errors.size >= 15, [...errors].join(" "));

    const metrics = await (await fetch(`${http}/metrics`)).text() +
      await (await fetch(`${http}/readyz`)).text();
    assert.deepEqual(found(NEVER_LOGGED, utf8(metrics)), []);
    const running = await plaintextFiles(folder.path);
    program.signal("SIGTERM");
    assert.equal((await program.ended()).code, 0);
    assert.ok(program.log.filter((line) => line.level === "debug").length > 15, "the log was talkative");
    assert.ok(program.log.some((line) => line.level === "error"), "the fault was logged");
    assert.deepEqual(found(NEVER_LOGGED, utf8(program.err + program.out)), []);
    assertNoPeerAddress(program);
    assert.deepEqual([...running, ...await plaintextFiles(folder.path)], []);
    if (backend === "sqlcipher") assertReadableWithKey(join(folder.path, "data", "qpq.db"));
  });
}

/** Where it listens is configuration; 127.0.0.1 anywhere else is the address of one of our clients. */
function assertNoPeerAddress(program: Program): void {
  const lines = program.log.filter((line) => !("listen" in line));
  assert.ok(lines.some((line) => line.address === "127.0.0.0/24"), "peers are named in short");
  assert.deepEqual(lines.filter((line) => JSON.stringify(line).includes("127.0.0.1")), []);
}

/** Files of the data folder with something planted in them; blobs are what clients have encrypted. */
async function plaintextFiles(folder: string): Promise<string[]> {
  const bad: string[] = [];
  for await (const path of filesBelow(join(folder, "data"))) {
    const secrets = found(NEVER_STORED, await Deno.readFile(path));
    bad.push(...secrets.map((secret) => `${path}: ${secret}`));
  }
  return bad;
}

/** The search would find them if they were there: with the key, an independent reader sees them. */
function assertReadableWithKey(path: string): void {
  const database = new Database(path, { readonly: true });
  try {
    for (const pragma of ["cipher='sqlcipher'", "legacy=4", `key='${DB_KEY}'`]) database.pragma(pragma);
    const names = database.prepare("SELECT user_name FROM accounts").pluck().all();
    assert.deepEqual(names, [USER_NAME]);
    const payloads = database.prepare("SELECT bytes FROM payloads").pluck().all() as Uint8Array[];
    assert.ok(payloads.some((bytes) => found([PAYLOAD], bytes).length > 0));
  } finally {
    database.close();
  }
}

Deno.test("the search finds a text as bytes, in UTF-16, hexadecimal and base64, also inside other data", () => {
  const text = "planted text of a secret";
  const utf16 = new Uint8Array(new Uint16Array([...text].map((char) => char.charCodeAt(0))).buffer);
  const inside = (bytes: Uint8Array) => new Uint8Array([7, ...bytes, 8]);
  const places = [utf8(text), utf16, utf8(utf8(text).toHex()), utf8(inside(utf8(text)).toBase64())];
  for (const place of places) {
    assert.deepEqual(found([text, "another text that is not there"], inside(place)), [text]);
  }
});
