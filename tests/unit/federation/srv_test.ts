import assert from "node:assert/strict";
import { Peers } from "../../../mod/federation/peers.ts";
import { SrvResolver } from "../../../mod/federation/srv.ts";
import { DnsServer } from "../../support/dns_server.ts";
import { RawDnsServer } from "../../support/raw_dns_server.ts";
import { FakeClock } from "../../support/fake_clock.ts";

const line = (priority: number, weight: number, target: string) => ({ priority, weight, port: 7001, target });

function records(dns: DnsServer, domain: string, ...lines: ReturnType<typeof line>[]): void {
  dns.records.set(`_qpq-federation._udp.${domain}`, lines);
}

Deno.test("lookup() orders targets by priority, then at random by weight", async () => {
  await using dns = new DnsServer();
  records(dns, "b.example", line(20, 0, "z.example"), line(10, 10, "x.example"), line(10, 90, "y.example"));
  const order = async (random: number) => {
    const srv = new SrvResolver({ clock: new FakeClock(), nameServer: dns.address, random: () => random });
    return (await srv.lookup("b.example")).map(({ hostname }) => hostname[0]).join("");
  };
  const orders = new Set([await order(0), await order(0.5), await order(0.99)]);
  assert.deepEqual([...orders].sort(), ["xyz", "yxz"]);
});

Deno.test("lookup() takes the 16 best of thousands of records, wherever they stand", async () => {
  await using dns = new RawDnsServer();
  const count = 3000;
  const data = (i: number) => [(count - i) >> 8, (count - i) & 255, 0, 1, 27, 89, 1, 120, 0];
  const record = (i: number) => [0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60, 0, 9, ...data(i)];
  const body = Uint8Array.from(Array.from({ length: count }, (_, i) => record(i)).flat());
  body[body.length - 2] = 121; // the best one has another name
  dns.answer = { before: [], flags: [0x81, 0x80], count, body, overTcp: true };
  const srv = new SrvResolver({ clock: new FakeClock(), nameServer: dns.address });
  const found = await srv.lookup("b.example");
  assert.deepEqual(found.map(({ hostname }) => hostname), ["y", ...Array(15).fill("x")]);
});

Deno.test("lookup() asks once in five minutes", async () => {
  await using dns = new DnsServer();
  records(dns, "b.example", line(1, 1, "x.example"));
  const clock = new FakeClock();
  const srv = new SrvResolver({ clock, nameServer: dns.address });
  assert.deepEqual(await srv.lookup("b.example"), [{ hostname: "x.example", port: 7001 }]);
  await srv.lookup("b.example");
  assert.equal(dns.queries, 1);
  await clock.advance(5 * 60_000);
  await srv.lookup("b.example");
  assert.equal(dns.queries, 2);
});

Deno.test("lookup() says what is missing when there is no record", async () => {
  await using dns = new DnsServer();
  const srv = new SrvResolver({ clock: new FakeClock(), nameServer: dns.address });
  await assert.rejects(srv.lookup("b.example"), {
    code: "peerUnavailable",
    message: /_qpq-federation\._udp\.b\.example/,
  });
});

Deno.test("in open mode a domain with an SRV record is a peer, and one without is none", async () => {
  await using dns = new DnsServer();
  records(dns, "b.example", line(1, 1, "x.example"));
  const srv = new SrvResolver({ clock: new FakeClock(), nameServer: dns.address });
  const settings = { mode: "open" as const, peers: [] };
  const peers = new Peers({ domain: "a.example", settings, srv });
  await peers.admit("b.example");
  await assert.rejects(peers.admit("c.example"), { reason: "unknown_domain" });
  await assert.rejects(peers.admit("a.example"), { reason: "unknown_domain" });
  peers.setBlocked("b.example", "blocked");
  await assert.rejects(peers.admit("b.example"), { reason: "blocked" });
});
