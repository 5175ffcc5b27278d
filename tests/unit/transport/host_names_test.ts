import assert from "node:assert/strict";
import { isIpAddress, nameMatches, normalHost, unmapIpv4 } from "../../../mod/transport/host_names.ts";

Deno.test("normalHost() makes equal hosts equal text", () => {
  const cases = [
    ["Example.ORG.", "example.org"],
    ["[::1]", "::1"],
    ["0:0:0:0:0:0:0:1", "::1"],
    ["FE80:0::1%eth0", "fe80::1"],
    ["127.0.0.1", "127.0.0.1"],
  ];
  for (const [host, normal] of cases) assert.equal(normalHost(host!), normal);
});

Deno.test("isIpAddress() tells addresses from names", () => {
  assert.deepEqual(["::1", "[::1]", "10.0.0.1"].map(isIpAddress), [true, true, true]);
  assert.deepEqual(["localhost", "1.2.3", "a:b"].map(isIpAddress), [false, false, false]);
});

Deno.test("unmapIpv4() touches IPv4-mapped addresses only", () => {
  assert.equal(unmapIpv4("::ffff:192.0.2.7"), "192.0.2.7");
  assert.equal(unmapIpv4("2001:db8::1"), "2001:db8::1");
  assert.equal(unmapIpv4("192.0.2.7"), "192.0.2.7");
});

Deno.test("nameMatches() follows RFC 9525", () => {
  const yes = [
    ["chat.example.org", "CHAT.example.org"],
    ["chat.example.org", "chat.example.org."],
    ["*.example.org", "chat.example.org"],
    ["::1", "0:0:0:0:0:0:0:1"],
    ["127.0.0.1", "127.0.0.1"],
  ];
  const no = [
    ["chat.example.org", "example.org"],
    ["*.example.org", "example.org"],
    ["*.example.org", "a.b.example.org"],
    ["*.example.org", ".example.org"],
    ["*.org", "example.org"],
    ["*", "localhost"],
    ["c*.example.org", "chat.example.org"],
    ["*.0.0.1", "127.0.0.1"],
    ["127.0.0.1", "127.0.0.2"],
    ["example.org", "example.org.evil.test"],
  ];
  for (const [name, host] of yes) assert.ok(nameMatches(name!, host!), `${name} should match ${host}`);
  for (const [name, host] of no) assert.ok(!nameMatches(name!, host!), `${name} should not match ${host}`);
});
