import assert from "node:assert/strict";
import { addressText } from "../../../mod/base/address.ts";

Deno.test("addressText() puts IPv6 addresses in brackets", () => {
  const text = (hostname: string) => addressText({ hostname, port: 7000 });
  assert.equal(text("127.0.0.1"), "127.0.0.1:7000");
  assert.equal(text("chat.example.org"), "chat.example.org:7000");
  assert.equal(text("::1"), "[::1]:7000");
  assert.equal(text("[::1]"), "[::1]:7000");
});
