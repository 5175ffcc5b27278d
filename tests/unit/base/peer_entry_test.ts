import assert from "node:assert/strict";
import { peerEntryText, tryParsePeerEntry } from "../../../mod/base/peer_entry.ts";

Deno.test("tryParsePeerEntry() reads a domain with and without an address, in normal form", () => {
  assert.deepEqual(tryParsePeerEntry("B.Example."), { domain: "b.example", address: null });
  assert.deepEqual(tryParsePeerEntry(" b.example = 10.0.0.2:7001 "), {
    domain: "b.example",
    address: { hostname: "10.0.0.2", port: 7001 },
  });
  assert.deepEqual(tryParsePeerEntry("b.example=[::1]:7001")?.address, { hostname: "::1", port: 7001 });
});

Deno.test("tryParsePeerEntry() takes nothing else", () => {
  for (
    const text of ["", "b_.example", "b.example=", "b.example=host", "b.example=host:0", "=a:1", "1.2.3.4"]
  ) {
    assert.equal(tryParsePeerEntry(text), undefined, text);
  }
});

Deno.test("peerEntryText() is read again as what it was made from", () => {
  for (const text of ["b.example", "b.example=10.0.0.2:7001", "b.example=[::1]:7001"]) {
    assert.equal(peerEntryText(tryParsePeerEntry(text)!), text);
  }
});
