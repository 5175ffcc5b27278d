/** Account and device keys: signatures, wrapping, pinning, safety numbers. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { concat, fromHex, hex, randomBytes, utf8 } from "../../../mod/base/bytes.ts";
import { type AccountId, type DeviceId, randomId } from "../../../mod/base/ids.ts";
import { verifyWithLabel } from "../../../mod/base/sign_with_label.ts";
import {
  AccountKeyError,
  generateKeyPair,
  keyPairOf,
  pin,
  safetyNumber,
  signDevice,
  signWithLabel,
  trustedDevices,
  unwrapAccountKey,
  verifyDevice,
  wrapAccountKey,
} from "../../../mod/client/account_keys.ts";

Deno.test("keyPairOf() gives the public key of RFC 8032's first test", async () => {
  const seed = fromHex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
  const pair = await keyPairOf(seed);
  assert.equal(hex(pair.publicKey), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
  assert.equal(hex(pair.privateKey), hex(seed));
  await assert.rejects(() => keyPairOf(randomBytes(31)), RangeError);
});

Deno.test("signWithLabel() makes signatures for one label and content only", async () => {
  const pair = await generateKeyPair();
  const signature = await signWithLabel(pair.privateKey, "qpq resume", utf8("nonce"), utf8("session"));
  const verify = (label: "qpq resume" | "qpq device", ...content: Uint8Array[]) =>
    verifyWithLabel(pair.publicKey, signature, label, ...content);
  assert.equal(await verify("qpq resume", utf8("noncesession")), true);
  assert.equal(await verify("qpq device", utf8("noncesession")), false);
  assert.equal(await verify("qpq resume", utf8("noncesessioN")), false);
});

Deno.test("unwrapAccountKey() undoes wrapAccountKey(), and takes nothing else", async () => {
  const pair = await generateKeyPair();
  const other = await generateKeyPair();
  const exportKey = randomBytes(64);
  const wrapped = await wrapAccountKey(pair, { exportKey, userName: "alice" });
  assert.equal(wrapped.length, 73);
  const right = { exportKey, userName: "alice", publicKey: pair.publicKey };
  assert.deepEqual(await unwrapAccountKey(wrapped, right), pair);
  const wrong = [
    { ...right, exportKey: randomBytes(64) },
    { ...right, userName: "alicia" },
    { ...right, publicKey: other.publicKey },
  ];
  for (const options of wrong) {
    await assert.rejects(() => unwrapAccountKey(wrapped, options), AccountKeyError);
  }
  for (let index = 0; index < wrapped.length; index += 8) {
    const changed = wrapped.with(index, wrapped[index]! ^ 1);
    await assert.rejects(() => unwrapAccountKey(changed, right), AccountKeyError, `byte ${index}`);
  }
  for (const bytes of [new Uint8Array(0), wrapped.slice(0, -1), concat(wrapped, randomBytes(1))]) {
    await assert.rejects(() => unwrapAccountKey(bytes, right), AccountKeyError);
  }
});

Deno.test("trustedDevices() keeps those that the account signed", async () => {
  const account = await generateKeyPair();
  const stranger = await generateKeyPair();
  const accountId = randomId<AccountId>();
  const claim = async () => ({
    accountId,
    deviceId: randomId<DeviceId>(),
    deviceKey: (await generateKeyPair()).publicKey,
  });
  const [good, foreign, unsigned, moved] = await Promise.all([claim(), claim(), claim(), claim()]);
  const signature = await signDevice(account.privateKey, good);
  const devices = [
    { ...good, accountSignature: signature },
    { ...foreign, accountSignature: await signDevice(stranger.privateKey, foreign) },
    { ...unsigned, accountSignature: new Uint8Array(0) },
    { ...moved, accountSignature: signature },
    { ...good, deviceId: moved.deviceId, accountSignature: signature },
  ];
  const options = { accountId, accountKey: account.publicKey };
  const trusted = await trustedDevices(devices, options);
  assert.deepEqual(trusted, [devices[0]]);
  assert.deepEqual(await trustedDevices(devices, { ...options, accountId: randomId<AccountId>() }), []);
  assert.equal(
    await verifyDevice(good, { accountKey: account.publicKey, accountSignature: signature }),
    true,
  );
});

Deno.test("pin() tells new, same and changed keys apart", () => {
  const key = randomBytes(32);
  assert.equal(pin(undefined, key), "new");
  assert.equal(pin(key, key.slice()), "same");
  assert.equal(pin(key, randomBytes(32)), "changed");
});

Deno.test("safetyNumber() is the same for both sides and another for any other key or account", () => {
  const side = () => ({ accountId: randomId<AccountId>(), accountKey: randomBytes(32) });
  const [alice, bob, mallory] = [side(), side(), side()];
  const number = safetyNumber(alice, bob);
  assert.match(number, /^(\d{5} ){11}\d{5}$/);
  assert.equal(safetyNumber(bob, alice), number);
  assert.notEqual(safetyNumber(alice, { ...bob, accountKey: mallory.accountKey }), number);
  assert.notEqual(safetyNumber(alice, { ...bob, accountId: mallory.accountId }), number);
});

Deno.test("safetyNumber() is the documented computation", () => {
  const accountId = "00112233445566778899aabbccddeeff" as AccountId;
  const accountKey = new Uint8Array(32).fill(7);
  let digest: Uint8Array = concat(fromHex("0001"), accountKey, fromHex(accountId));
  for (let round = 0; round < 5200; round++) {
    digest = createHash("sha512").update(concat(digest, accountKey)).digest();
  }
  const first = BigInt("0x" + hex(digest.subarray(0, 5))) % 100_000n;
  const number = safetyNumber({ accountId, accountKey }, { accountId, accountKey });
  assert.equal(number.slice(0, 5), String(first).padStart(5, "0"));
  assert.equal(number.slice(0, 35), number.slice(36));
});
