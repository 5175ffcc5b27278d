import assert from "node:assert/strict";
import fc from "fast-check";
import {
  readAddress,
  readBoolean,
  readBytes,
  readDuration,
  readEnum,
  type Reader,
  readInteger,
  readIpAddress,
  readList,
  readSecretLines,
  readString,
  Refusal,
  showAddress,
  showBytes,
  showDuration,
} from "../../../mod/config/values.ts";

function accepts<T>(read: Reader<T>, cases: readonly [unknown, T][]): void {
  for (const [raw, value] of cases) assert.deepEqual(read(raw), value, JSON.stringify(raw));
}

function refuses(read: Reader<unknown>, cases: readonly unknown[]): void {
  for (const raw of cases) assert.ok(read(raw) instanceof Refusal, `${JSON.stringify(raw)} was accepted`);
}

Deno.test("readBoolean() reads words and TOML booleans", () => {
  accepts(readBoolean, [["true", true], ["FALSE", false], ["1", true], ["off", false], [" yes ", true], [
    false,
    false,
  ]]);
  refuses(readBoolean, ["", "2", "tru", 1, null, []]);
});

Deno.test("readInteger() reads whole numbers within the bounds", () => {
  accepts(readInteger(0, 1000), [["0", 0], [" 42 ", 42], ["1_000", 1000], [1000, 1000]]);
  refuses(readInteger(0, 1000), ["", "-1", "1001", "1.5", 1.5, "1e3", "0x10", true, NaN, "1__0", "ten"]);
});

Deno.test("readDuration() reads seconds and units", () => {
  accepts(readDuration(0, 1e12), [
    ["10", 10_000],
    [10, 10_000],
    ["250ms", 250],
    ["10s", 10_000],
    ["1.5m", 90_000],
    ["24h", 86_400_000],
    ["30 d", 2_592_000_000],
    ["30D", 2_592_000_000],
  ]);
  refuses(readDuration(0, 1e12), ["", "s", "10x", "-5s", "1e3s", "10s5", null, true, "10 s 5", "__proto__"]);
  refuses(readDuration(1000, 5000), ["999ms", "6s"]);
});

Deno.test("readBytes() reads decimal and binary units", () => {
  accepts(readBytes(0, 1e15), [["0", 0], [512, 512], ["2MiB", 2097152], ["1 gb", 1e9], ["1.5KiB", 1536], [
    "7b",
    7,
  ]]);
  refuses(readBytes(0, 1e15), ["", "MiB", "2M", "1.0001KiB", "-1", "2constructor"]);
});

Deno.test("readIpAddress() takes no host name", () => {
  accepts(readIpAddress, [
    ["192.0.2.1:53", { hostname: "192.0.2.1", port: 53 }],
    ["[2001:db8::1]:53", { hostname: "2001:db8::1", port: 53 }],
  ]);
  refuses(readIpAddress, ["1.2.3:53", "[::1%]:53", "192.0.2.1", 53]);
  const refusal = readIpAddress("dns.example:53");
  assert.ok(refusal instanceof Refusal);
  assert.match(refusal.text, /must name an IP address .* no host name: .*dns\.example/);
});

Deno.test("readAddress() reads host and port", () => {
  accepts(readAddress, [
    ["0.0.0.0:7000", { hostname: "0.0.0.0", port: 7000 }],
    ["[::]:7000", { hostname: "::", port: 7000 }],
    ["[fe80::1%eth0]:1", { hostname: "fe80::1%eth0", port: 1 }],
    ["chat.example.org:0", { hostname: "chat.example.org", port: 0 }],
  ]);
  refuses(readAddress, [
    "",
    "7000",
    ":7000",
    "::1:7000",
    "host",
    "host:65536",
    "host:-1",
    "a b:1",
    "[x]:1",
    7000,
  ]);
});

Deno.test("readList() reads commas and arrays", () => {
  accepts(readList, [["a, b,,c ", ["a", "b", "c"]], [["x"], ["x"]]]);
  refuses(readList, ["", " , ", [], [1], {}, 5]);
});

Deno.test("readEnum() reads one of the words", () => {
  accepts(readEnum(["auto", "json"]), [["json", "json"], [" AUTO ", "auto"]]);
  refuses(readEnum(["auto", "json"]), ["", "xml", 1, true]);
});

Deno.test("readString() wants text", () => {
  accepts(readString, [[" a ", "a"]]);
  refuses(readString, ["", "  ", 1, {}]);
});

Deno.test("readSecretLines() trims lines and drops blank ones", () => {
  accepts(readSecretLines, [["one\r\n  two \n\n", ["one", "two"]], ["x", ["x"]]]);
  refuses(readSecretLines, ["", " \n\n", 5, "a\0b", "a\tb\x7f"]);
});

Deno.test("no reader of secrets repeats what it was given", () => {
  for (const raw of [12345678, ["planted"], { planted: 1 }, "planted\0x"]) {
    const refusal = readSecretLines(raw);
    assert.ok(refusal instanceof Refusal);
    assert.doesNotMatch(refusal.text, /planted|12345678/);
  }
});

Deno.test("readers throw for nothing", () => {
  const readers: Reader<unknown>[] = [
    readString,
    readBoolean,
    readInteger(0, 10),
    readDuration(0, 10),
    readBytes(0, 10),
    readAddress,
    readList,
    readEnum(["a"]),
    readSecretLines,
  ];
  fc.assert(fc.property(fc.anything(), fc.constantFrom(...readers), (raw, read) => {
    read(raw);
  }));
  const cycle: Record<string, unknown> = {};
  cycle.cycle = cycle;
  const unprintable = Object.assign(Object.create(null), { toJSON: () => undefined });
  for (const raw of [10n ** 30n, cycle, unprintable]) for (const read of readers) read(raw);
});

Deno.test("what is shown is read back as the same", () => {
  fc.assert(fc.property(fc.nat(2 ** 40), (n) => {
    assert.equal(readDuration(0, 2 ** 41)(showDuration(n)), n);
    assert.equal(readBytes(0, 2 ** 41)(showBytes(n)), n);
  }));
  for (const text of ["0.0.0.0:7000", "[::1]:0"]) {
    assert.equal(showAddress(readAddress(text) as { hostname: string; port: number }), text);
  }
});
