/** What is read from files: configuration, journal, manifests of backups and their lists. */
import assert from "node:assert/strict";
import { join, normalize } from "node:path";
import { concat, hex, utf8, utf8Text } from "../../mod/base/bytes.ts";
import { parseList } from "../../mod/admin/backup_blobs.ts";
import { parseManifest } from "../../mod/admin/backup_manifest.ts";
import { load } from "../../mod/config/load.ts";
import { OPTION_KEYS } from "../../mod/config/options.ts";
import { parseToml } from "../../mod/config/toml.ts";
import { loadChanges } from "../../mod/store/file/batch.ts";
import { openJournal } from "../../mod/store/file/recovery.ts";
import { State } from "../../mod/store/file/state.ts";
import { type Value, ValueWriter } from "../../mod/store/file/value.ts";
import { parseRevocations } from "../../mod/store/revocation_log.ts";
import { MemoryDisk } from "./memory_disk.ts";
import type { Random } from "./random.ts";
import { refusing, refusingLater, type Target } from "./target.ts";

const lenient = new TextDecoder();

const VALUES = [
  '"x"',
  "1",
  "-1",
  "1e400",
  "true",
  "[]",
  '["a","b"]',
  "{}",
  "1979-05-27",
  '"""\n"""',
  "inf",
  "0x1F",
];

function randomToml(random: Random): Uint8Array {
  const lines = random.list(6, () => {
    const [group, name] = random.pick(OPTION_KEYS).split(".") as [string, string | undefined];
    const key = random.pick([
      group,
      `${group}.${name}`,
      name ?? group,
      `"${group}"`,
      "__proto__",
      "constructor",
    ]);
    const start = random.oneIn(4) ? `[${random.pick([group, "limits", "__proto__", "[a]"])}]\n` : "";
    return `${start}${key} = ${random.pick(VALUES)}`;
  });
  return utf8(lines.join("\n"));
}

/** Whatever the file holds, the configuration is loaded or refused with every problem named. */
const toml: Target = {
  name: "toml",
  generate: randomToml,
  run(input) {
    const text = lenient.decode(input);
    const parsed = parseToml(text);
    assert.ok(parsed.ok || parsed.line >= 0);
    const readFile = () => ({ text, mode: null, othersMayRead: false });
    refusing(
      ["ConfigError"],
      () => load({ env: {}, flags: { config: "/qpq-server.toml" }, readFile, purpose: "tool" }),
    );
    assert.equal(({} as Record<string, unknown>)["x"], undefined, "the prototype of all objects was changed");
  },
};

function randomValue(random: Random, depth = 0): Value {
  switch (random.below(depth > 3 ? 6 : 8)) {
    case 0:
      return null;
    case 1:
      return random.oneIn(2);
    case 2:
      return random.below(200);
    case 3:
      return random.pick(["", "alice", "incarnation", "realmId"]);
    case 4:
      return hex(random.bytes(16));
    case 5:
      return random.bytes(random.length(64));
    default:
      return random.list(6, () => randomValue(random, depth + 1));
  }
}

/** Changes of a batch, as the journal holds them behind its seal: what cannot be understood is a ValueError. */
const journalRows: Target = {
  name: "journal_rows",
  generate(random) {
    const writer = new ValueWriter();
    writer.write(random.below(3));
    for (const row of random.list(4, () => [random.below(20), randomValue(random)])) writer.write(row);
    return writer.take();
  },
  run(input) {
    refusing(["ValueError"], () => loadChanges(new State({ queueEntriesMax: 100 }), input));
  },
};

const KEY = "0123456789abcdef".repeat(4);
const OPEN = { dataDir: "/data", keys: [KEY], mustExist: true };
const LIMITS = { queueEntriesMax: 100 };
const sound = new MemoryDisk();
const made = await openJournal({ ...OPEN, mustExist: false }, sound, LIMITS);
await made.journal.close();
const [segmentPath, segment] = [...sound.files].find(([path]) => path.endsWith(".segment"))!;

/** The file of a journal: opened, cut at an incomplete end, or refused as damaged and then left as it is. */
const journalFile: Target = {
  name: "journal_file",
  generate: (random) => random.oneIn(2) ? segment.slice() : concat(segment, random.bytes(random.length())),
  async run(input) {
    const disk = new MemoryDisk();
    disk.files.set(segmentPath, new Uint8Array(input));
    const opened = await refusingLater(["StoreOpenError"], () => openJournal(OPEN, disk, LIMITS));
    if (opened) await opened.journal.close();
    else assert.deepEqual(disk.files.get(segmentPath), new Uint8Array(input), "refused, and changed");
  },
};

const PATHS = [
  "blobs.list",
  "store/qpq.db",
  "revocations.log",
  "../x",
  "store/../../x",
  "/etc/passwd",
  "store/a/b/c",
];

function randomManifest(random: Random): Uint8Array {
  const count = () => random.pick<unknown>([0, 1, 2 ** 53, -1, "1", null]);
  const counts = Object.fromEntries(
    ["accounts", "devices", "queueEntries", "queueBytes", "keyPackages", "blobs", "blobBytes"].map((
      key,
    ) => [key, 1]),
  );
  const file = () => ({
    path: random.pick(PATHS),
    bytes: random.oneIn(5) ? count() : 1,
    sha256: "ab".repeat(32),
  });
  const manifest: Record<string, unknown> = {
    format: 1,
    id: "2026-01-01",
    createdAt: 1,
    programVersion: "0.1.0",
    backend: "file",
    schemaVersion: 1,
    incarnation: "00".repeat(16),
    realmId: "00",
    dbKeyId: "none",
    counts,
    encryption: random.oneIn(3) ? { recipients: ["age1x"] } : null,
    blobs: { count: 1, bytes: 1, missing: 0 },
    files: [{ path: "blobs.list", bytes: 1, sha256: "cd".repeat(32) }, ...random.list(3, file)],
  };
  if (random.oneIn(3)) manifest[random.pick(Object.keys(manifest))] = count();
  return utf8(JSON.stringify(manifest));
}

/** No path of a manifest that is taken leads out of the backup, or to another of its own files. */
const manifest: Target = {
  name: "manifest",
  generate: randomManifest,
  run(input) {
    const read = refusing(["AdminError"], () => parseManifest("/backup", input));
    for (const { path } of read?.files ?? []) {
      const full = normalize(join("/backup", path));
      assert.equal(full, `/backup/${path}`, "a path that is not what it looks like");
      assert.ok(!/(^|\/)\.|\0|\\|^manifest|^secrets/.test(path), path);
    }
  },
};

/** The list of blobs of a backup, and the log of revocations: lines from a disk that may be anybody's. */
const lists: Target = {
  name: "lists",
  generate(random) {
    const hash = hex(random.bytes(32));
    const blob = `${random.oneIn(4) ? "missing" : hash} ${random.below(99)} blobs/${hash.slice(0, 2)}/${
      hash.slice(2)
    }`;
    const kind = random.pick(["deviceRevoked", "accountDeleted", "x"]);
    const revocation = JSON.stringify({
      at: random.below(9),
      kind,
      account: hash.slice(32),
      device: hash.slice(32),
    });
    return utf8(
      random.list(4, () => random.oneIn(2) ? blob : revocation).map((line) => `${line}\n`).join(""),
    );
  },
  async run(input) {
    const chunks = (async function* () {
      yield input;
    })();
    const blobs = await refusingLater(
      ["AdminError", "TypeError"],
      () => parseList(chunks, { encrypted: false }),
    );
    for (const hash of blobs?.keys() ?? []) {
      assert.match(hash, /^blobs\/[0-9a-f]{2}\/[0-9a-f]{62}$|^[0-9a-f]{64}$/);
    }
    const text = refusing(["TypeError"], () => utf8Text(input));
    if (text !== null) assert.ok(parseRevocations(text).damagedLines >= 0);
  },
};

/** All of them. */
export const FILE_TARGETS: readonly Target[] = [toml, journalRows, journalFile, manifest, lists];
