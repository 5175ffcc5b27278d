import assert from "node:assert/strict";
import fc from "fast-check";
import {
  hideInLogs,
  isSecretName,
  maskAddresses,
  REDACTED,
  redactProperties,
  redactText,
  redactValue,
} from "../../../mod/base/log_redact.ts";

Deno.test("maskAddresses() cuts peers to their network", () => {
  const cases: Record<string, string> = {
    "10.1.2.3": "10.1.2.0/24",
    "from 10.1.2.3:7000.": "from 10.1.2.0/24:7000.",
    "peer:192.168.1.77,x": "peer:192.168.1.0/24,x",
    "127.0.0.1": "127.0.0.0/24",
    "10.1.2.3/32": "10.1.2.0/24",
    "2001:db8:1:2::3": "2001:db8:1::/48",
    "[2001:db8:1:2:3:4:5:6]:7000": "[2001:db8:1::/48]:7000",
    "peer:2001:db8::1": "peer:2001:db8:0::/48",
    "2001:db8::1: refused": "2001:db8:0::/48: refused",
    "fe80::1%eth0 went": "fe80:0:0::/48 went",
    "::ffff:10.1.2.3": "10.1.2.0/24",
    "2001:db8::/64": "2001:db8:0::/48",
    "2001:db8:1:2:3:4:5:6:7000": "2001:db8:1::/48:7000",
    "10.1.2.3ms": "10.1.2.0/24ms",
    "a 10.0.0.1 b ::1 c": "a 10.0.0.0/24 b 0:0:0::/48 c",
  };
  for (const [text, masked] of Object.entries(cases)) assert.equal(maskAddresses(text), masked, text);
});

Deno.test("maskAddresses() leaves times, versions, fingerprints, paths and listen addresses alone", () => {
  const texts = [
    "2026-01-01T12:34:56.789Z",
    "12:34:56",
    "12:34:56.789 x",
    "Deno 2.9.6",
    "v1.2.3.4",
    "1.2.3.4.5",
    "999.1.2.3",
    "10.1.2.0/24",
    "10.0.0.0/8",
    "2001:db8:1::/48",
    "0.0.0.0:7000",
    "[::]:7000",
    "qpq::delivery",
    "std::io::Error",
    "SHA-256 AB:CD:EF:01:23:45:67:89:AB:CD:EF:01:23:45:67:89:AB:CD:EF:01",
    "file:///srv/qpq/mod/base/log.ts:12:34",
    "at main (log.ts:1:2)",
    "x:y:z",
    "::",
    "https://example.org:443/x",
  ];
  for (const text of texts) assert.equal(maskAddresses(text), text);
});

Deno.test("maskAddresses() lets no full IPv4 address through, wherever it stands", () => {
  const around = fc.constantFrom("", " ", "(", ")", "[", "]", ",", ":", "=", "@", "/", '"', "peer ", "ip=");
  fc.assert(fc.property(fc.ipV4(), around, around, (address, before, after) => {
    fc.pre(address !== "0.0.0.0" && !address.endsWith(".0"));
    assert.ok(!maskAddresses(before + address + after).includes(address));
  }));
});

Deno.test("maskAddresses() lets no full IPv6 address through", () => {
  const around = fc.constantFrom("", " ", "(", ")", "[", "]", ",", "=", "@", '"', ": ");
  const group = fc.integer({ min: 0x100, max: 0xffff }).map((value) => value.toString(16));
  const address = fc.array(group, { minLength: 8, maxLength: 8 }).map((groups) => groups.join(":"));
  fc.assert(fc.property(address, fc.oneof(around, fc.constant("peer:")), around, (text, before, after) => {
    assert.ok(!maskAddresses(before + text + after).includes(text.split(":").slice(3).join(":")));
  }));
});

Deno.test("isSecretName() knows secrets however they are written", () => {
  const secret = ["password", "Password", "authToken", "auth_token", "QPQ_DB_KEY", "private-key", "payload"];
  for (const name of [...secret, "client_secret", "exportKey", "authorization", "invitation", "text"]) {
    assert.ok(isSecretName(name), name);
  }
  for (
    const name of ["keyPackages", "account", "queueDepth", "tokenFile", "code", "keys_max", "secretsRead"]
  ) {
    assert.ok(!isSecretName(name), name);
  }
});

Deno.test("redactValue() shows lengths of byte strings and nothing of secrets", () => {
  assert.equal(redactValue("data", new Uint8Array(5)), "<5 bytes>");
  assert.equal(redactValue("data", new ArrayBuffer(6)), "<6 bytes>");
  assert.equal(redactValue("password", "hunter2"), REDACTED);
  assert.equal(redactValue("token", 12345), REDACTED);
  assert.equal(redactValue("hasToken", true), true);
  assert.equal(redactValue("token", null), null);
  assert.deepEqual(
    redactValue("request", { user: "a", inner: { authToken: "t", list: [{ secret: "s" }] } }),
    {
      user: "a",
      inner: { authToken: REDACTED, list: [{ secret: REDACTED }] },
    },
  );
});

Deno.test("redactValue() keeps listen addresses and hashes, masks the same text elsewhere", () => {
  assert.equal(redactValue("listen", "127.0.0.1:7000"), "127.0.0.1:7000");
  assert.equal(redactValue("metricsListen", "10.0.0.1:9090"), "10.0.0.1:9090");
  assert.equal(redactValue("version", "1.2.3.4"), "1.2.3.4");
  assert.equal(redactValue("fingerprint", "AB:CD:EF:01:23:45:67:89"), "AB:CD:EF:01:23:45:67:89");
  assert.equal(redactValue("peer", "10.0.0.1:9090"), "10.0.0.0/24:9090");
});

Deno.test("redactValue() shows an error with its code and causes", () => {
  const error = new Error("outer 10.1.2.3", { cause: new TypeError("inner", { cause: { token: "t" } }) });
  Object.assign(error, { code: "ECONNREFUSED" });
  const plain = redactValue("error", error) as Record<string, Record<string, unknown>>;
  assert.equal(plain.message, "outer 10.1.2.0/24");
  assert.equal(plain.code, "ECONNREFUSED");
  assert.equal(plain.cause?.name, "TypeError");
  assert.deepEqual(plain.cause?.cause, { token: REDACTED });
});

Deno.test("redactValue() ends at cycles, depth, length and hostile objects", () => {
  const cycle: Record<string, unknown> = { name: "a" };
  cycle.self = cycle;
  assert.ok(JSON.stringify(redactValue("cycle", cycle)).length < 1000);
  const loop = new Error("loop");
  loop.cause = loop;
  assert.ok(JSON.stringify(redactValue("error", loop)).includes("loop"));
  assert.ok(String(redactValue("long", "x".repeat(1e6))).length < 10_000);
  assert.equal((redactValue("many", new Array(1000).fill(1)) as unknown[]).length, 51);
  const hostile = {
    get x(): never {
      throw new Error("no");
    },
    y: 1,
  };
  assert.deepEqual(redactValue("hostile", hostile), { x: "[unprintable]", y: 1 });
  const proxy = new Proxy({}, {
    ownKeys() {
      throw new Error("no");
    },
    getPrototypeOf() {
      throw new Error("no");
    },
  });
  assert.equal(redactValue("proxy", proxy), "[unprintable]");
  assert.deepEqual(redactProperties(proxy), {});
});

Deno.test("redactProperties() makes JSON of anything", () => {
  fc.assert(
    fc.property(
      fc.dictionary(
        fc.string(),
        fc.anything({
          withBigInt: true,
          withMap: true,
          withSet: true,
          withDate: true,
          withTypedArray: true,
          withNullPrototype: true,
        }),
      ),
      (properties) => {
        JSON.parse(JSON.stringify(redactProperties(properties)));
      },
    ),
  );
});

Deno.test("hideInLogs() cuts known secrets out of any text", () => {
  hideInLogs(["correct-horse-battery", "correct-horse-battery-staple", "short"]);
  try {
    assert.equal(redactText("a correct-horse-battery-staple b"), `a ${REDACTED} b`);
    assert.equal(redactValue("version", "correct-horse-battery"), REDACTED);
    assert.equal(redactText("a short story"), "a short story");
  } finally {
    hideInLogs([]);
  }
});

Deno.test("maskAddresses() finds a peer behind a very long word", () => {
  const text = `${"a".repeat(8000)} x:y:z ${"ab.".repeat(2000)}: 2001:db8:1:2:3:4:5:6`;
  assert.ok(maskAddresses(text).endsWith(": 2001:db8:1::/48"));
});

Deno.test("maskAddresses() looks behind a few words only, however many there are", () => {
  assert.equal(maskAddresses("a.x:b.y:peer:2001:db8:1:2::3"), "a.x:b.y:peer:2001:db8:1::/48");
  const many = "ab.cd:".repeat(1300);
  assert.equal(maskAddresses(many), many);
});
