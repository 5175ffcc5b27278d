/**
 * The pages for operators tell the truth: every command in README.md and ops/*.md is run, in order, and what a page
 * promises as its output is what comes. A page is one story on one machine, or each of its sections is; sections of the
 * playbook begin with their incident, made to happen where that can be undone. Also: links, anchors, and the tables that are generated.
 */
import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { readFigures, withTables } from "../../ops/scaling/figures.ts";
import { lacks } from "../support/installed.ts";
import {
  anchorOf,
  type Block,
  Machine,
  type MachineOptions,
  matchesOutput,
  parsePage,
} from "../support/pages.ts";
import { readSource, ROOT } from "../support/source_tree.ts";

/** How the commands of a page are run. */
interface PageRun {
  /** One machine for the page, or a new one for each section. */
  readonly machineFor: "page" | "section";
  /** Does the server run when the page begins? */
  readonly server: "running" | "stopped";
  readonly options?: MachineOptions;
}

const ON_A_SERVER = { QPQ_DATA_DIR: "/var/lib/qpq" };
const PAGES: Readonly<Record<string, PageRun>> = {
  "README.md": {
    machineFor: "page",
    server: "stopped",
    options: { serverEnv: { QPQ_DATA_DIR: "./data" }, env: { LOG_FORMAT: "human" } },
  },
  "ops/backup-restore.md": { machineFor: "page", server: "running" },
  "ops/configuration.md": { machineFor: "page", server: "running" },
  "ops/federation.md": {
    machineFor: "page",
    server: "running",
    options: { serverEnv: { QPQ_FEDERATION_LISTEN: "127.0.0.1:0" } },
  },
  "ops/guarantees.md": { machineFor: "page", server: "stopped" },
  "ops/incident-response.md": { machineFor: "section", server: "running" },
  "ops/key-rotation.md": { machineFor: "section", server: "running" },
  "ops/monitoring.md": { machineFor: "page", server: "running" },
  "ops/scaling-guide.md": { machineFor: "page", server: "stopped" },
};

/** Commands in ```sh that are not run, and why. */
const NOT_RUN: Readonly<Record<string, string>> = {
  "npx --yes deno@2.9.6 task start": "the tour below it starts the server as well, and shows its output",
  "npx --yes deno@2.9.6 task test": "it would run this test, for ever",
};

/** Commands that only `deno task pages` runs, and why. */
const SLOW: Readonly<Record<string, string>> = {
  "deno task scaling --quick":
    "it loads the machine for half a minute, and measures what other tests leave of it",
};

/** What a ```shell block is allowed to need, and why no test has it. */
const NEEDED: readonly (readonly [program: RegExp, why: string])[] = [
  [/^docker /, "containers need a daemon"],
  [/^(systemctl|journalctl|systemd-\w+) /, "with flags that only the real systemd knows"],
  [/^(ssh|scp|rsync) /, "another machine"],
  [/^sysctl -w /, "the kernel of the machine that tests"],
  [/^nft /, "the firewall of the machine that tests"],
  [/^(apt-get|install|useradd) /, "the packages and users of the machine that tests"],
];

/** What an operator's machine has and a fresh one may lack. */
const PROGRAMS = ["amtool", "curl", "jq", "openssl", "pgrep", "promtool", "ss"];

/** `deno task pages` leaves out nothing. */
const ALL_PAGES = Deno.env.get("ALL_PAGES") === "1";

/** The alerts link to these. */
const PLAYBOOK = [
  ...[
    "server-down",
    "disk-full",
    "database-damaged",
    "certificate-expired",
    "token-leaked",
    "opaque-setup-leaked",
  ],
  ...["db-key-leaked-or-lost", "flood-or-brute-force", "queue-growing", "federation", "restore-from-nothing"],
];

/** Makes the incident of a section happen, or what else its commands find. */
const PREPARE: Readonly<Record<string, (machine: Machine) => Promise<void>>> = {
  "ops/incident-response.md#server-down": (machine) => machine.succeed("systemctl kill qpq-server"),
  "ops/incident-response.md#disk-full": (machine) => machine.succeed("qpq-server backup create"),
  // A page in the middle of the file: found by reading it, not by opening.
  "ops/incident-response.md#database-damaged": async (machine) => {
    await machine.succeed("qpq-server backup create");
    await machine.succeed("systemctl stop qpq-server");
    await machine.succeed(
      "head -c 4096 /dev/zero | dd of=/var/lib/qpq/qpq.db bs=4096 seek=30 conv=notrunc",
    );
  },
  "ops/incident-response.md#db-key-leaked-or-lost": (machine) =>
    machine.succeed("rm /var/lib/qpq/secrets/db-key"),
  "ops/incident-response.md#queue-growing": (machine) =>
    machine.succeed("qpq-client --state alice send bob hello"),
  "ops/federation.md": (machine) =>
    machine.succeed(
      "echo 'export QPQ_FEDERATION_DOMAIN=example.org QPQ_FEDERATION_PEERS=example.net=127.0.0.1:9' >> unit.env",
    ),
  "ops/incident-response.md#federation": async (machine) => {
    await machine.succeed("systemctl stop qpq-server");
    await machine.succeed(
      "cd /var/lib/qpq/tls; qpq-server rotate federation --cert server.pem --key server.key --ca ca.pem",
    );
    await machine.succeed(
      "echo 'export QPQ_FEDERATION_DOMAIN=example.org QPQ_FEDERATION_LISTEN=127.0.0.1:0' >> unit.env",
    );
    await machine.succeed(
      "echo 'export QPQ_FEDERATION_PEERS=example.net=127.0.0.1:9' >> unit.env",
    );
    await machine.succeed("systemctl start qpq-server");
  },
  "ops/incident-response.md#restore-from-nothing": async (machine) => {
    await machine.succeed("qpq-server backup create --to /mnt/backups");
    await machine.succeed("cp -a /var/lib/qpq/secrets /var/lib/qpq/tls /mnt/keys/");
    await machine.succeed("systemctl kill qpq-server");
    await machine.succeed("rm -r /var/lib/qpq");
  },
  "ops/key-rotation.md#access-token-in-a-file-of-your-own": async (machine) => {
    await machine.succeed("systemctl stop qpq-server");
    await machine.succeed("umask 077; cp /var/lib/qpq/secrets/auth-token /etc/qpq/auth-token");
    await machine.succeed('echo "export QPQ_AUTH_TOKEN_FILE=/etc/qpq/auth-token" >> unit.env');
    await machine.succeed("systemctl start qpq-server");
  },
  "ops/key-rotation.md#federation": (machine) =>
    machine.succeed(
      "cp /var/lib/qpq/tls/server.pem cert.pem; cp /var/lib/qpq/tls/server.key key.pem; cp /var/lib/qpq/tls/ca.pem trusted.pem",
    ),
};

for (const [page, run] of Object.entries(PAGES)) {
  const sections = parsePage(readSource(page));
  const stories = run.machineFor === "section"
    ? sections.map(({ anchor, blocks }) => ({ anchor, blocks }))
    : [{ anchor: "", blocks: sections.flatMap(({ blocks }) => blocks) }];
  for (const { anchor, blocks } of stories) {
    const runnable = blocks.filter(({ fence, code }) =>
      fence === "sh" && !(code in NOT_RUN) && (ALL_PAGES || !(code in SLOW))
    );
    if (runnable.length === 0) continue;
    const name = anchor === "" ? page : `${page}#${anchor}`;
    Deno.test(
      `${name}: its commands run and print what it says`,
      { ignore: lacks(...PROGRAMS) },
      () => follow(name, { run, blocks: runnable }),
    );
  }
}

async function follow(
  name: string,
  { run, blocks }: { run: PageRun; blocks: readonly Block[] },
): Promise<void> {
  const env = name.startsWith("ops/") ? ON_A_SERVER : {};
  await using machine = await Machine.make({ ...run.options, env: { ...env, ...run.options?.env } });
  if (run.server === "running") await machine.succeed("systemctl start qpq-server");
  if (
    blocks.some(({ code, expected }) => /\b(alice|bob)\b/.test(code + expected)) && run.server === "running"
  ) {
    await machine.addPeople();
  }
  await PREPARE[name]?.(machine);
  for (const { code, expected, line } of blocks) {
    const { code: status, output } = await machine.run(code);
    const where = `${name.replace(/#.*/, "")}:${line}\n${code}\n--- printed\n${output}`;
    assert.equal(status, 0, `exit code ${status} of ${where}`);
    if (expected === null) continue;
    assert.ok(matchesOutput(output, expected), `another output of ${where}--- promised\n${expected}`);
  }
}

Deno.test("matchesOutput() is strict about all but times, ids, figures and what … stands for", () => {
  const printed = "made 0f2f6a88bd95 at 2026-11-22T21:15:15.633Z\nit took 12 ms\nall is well\n";
  assert.ok(matchesOutput(printed, "made aaaaaaaaaaaa at 2027-01-01T00:00:00Z\nit took 9.5 ms\nall is well"));
  assert.ok(matchesOutput(printed, "made …\n…\nall is well"));
  assert.ok(matchesOutput(printed, "…\nall … well"));
  assert.ok(!matchesOutput(printed, "made …\nall is well"));
  assert.ok(!matchesOutput(printed, "made …\n…\nall is bad"));
  assert.ok(!matchesOutput(printed, "…\nit took 12 ms"));
  assert.ok(!matchesOutput("", "…\nall is well"));
});

Deno.test("parsePage() finds commands, and an output only right behind them", () => {
  const page =
    "# A page\n```sh\none\n```\n\n```text\n1\n```\n\n## B & c?\n```shell\ntwo\n```\nWords.\n```text\n2\n```\n";
  assert.deepEqual(parsePage(page), [
    { title: "A page", anchor: "a-page", blocks: [{ fence: "sh", code: "one", expected: "1", line: 3 }] },
    { title: "B & c?", anchor: "b--c", blocks: [{ fence: "shell", code: "two", expected: null, line: 12 }] },
  ]);
});

Deno.test("blocks that no test runs need what no test has", () => {
  for (const page of Object.keys(PAGES)) {
    const blocks = parsePage(readSource(page)).flatMap(({ blocks }) => blocks);
    for (const { fence, code, line } of blocks) {
      if (fence === "sh") continue;
      const lines = code.replaceAll(/\\\n\s*/g, "").split("\n").filter((text) => !/^\s*(#|$)/.test(text));
      const runnable = lines.filter((text) => !NEEDED.some(([program]) => program.test(text)));
      assert.deepEqual(runnable, [], `${page}:${line} can be run: fence it as sh`);
    }
  }
  const all = Object.keys(PAGES).flatMap((page) =>
    parsePage(readSource(page)).flatMap(({ blocks }) => blocks)
  );
  const codes = new Set(all.map(({ code }) => code));
  const left = Object.keys({ ...NOT_RUN, ...SLOW });
  assert.deepEqual(left.filter((code) => !codes.has(code)), [], "NOT_RUN or SLOW name what is gone");
});

Deno.test("every page of ops/ is followed by this test", async () => {
  const pages = [];
  for await (const { name } of Deno.readDir(join(ROOT, "ops"))) {
    if (name.endsWith(".md")) pages.push(`ops/${name}`);
  }
  assert.deepEqual(pages.sort(), Object.keys(PAGES).filter((page) => page.startsWith("ops/")).sort());
});

Deno.test("the playbook has every section that alerts link to", () => {
  const anchors = parsePage(readSource("ops/incident-response.md")).map(({ anchor }) => anchor);
  assert.deepEqual(PLAYBOOK.filter((anchor) => !anchors.includes(anchor)), []);
  const linked = readSource("ops/prometheus-alerts.yml").matchAll(/runbook_url: (\S+)#(\S+)/g);
  const dead = [...linked].filter(([, page, anchor]) =>
    page !== "ops/incident-response.md" || !anchors.includes(anchor!)
  );
  assert.deepEqual(dead.map(([line]) => line), []);
});

Deno.test("links between pages lead somewhere", () => {
  const dead = [...Object.keys(PAGES), "SECURITY.md", "ARCHITECTURE.md", "CHANGELOG.md"].flatMap((page) =>
    [...readSource(page).matchAll(/\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)/g)]
      .filter(([, path, anchor]) => !leads(page, path!, anchor))
      .map(([link]) => `${page}: ${link}`)
  );
  assert.deepEqual(dead, []);
});

function leads(page: string, path: string, anchor: string | undefined): boolean {
  const target = path === "" ? page : join(dirname(page), path);
  try {
    if (Deno.statSync(join(ROOT, target)).isDirectory || anchor === undefined) return anchor === undefined;
  } catch {
    return false;
  }
  const headings = [...readSource(target).matchAll(/^#+ (.+)$/gm)].map(([, title]) => anchorOf(title!));
  return headings.includes(anchor);
}

Deno.test("the scaling guide's tables are those of measured.json", async () => {
  const guide = readSource("ops/scaling-guide.md");
  assert.equal(withTables(guide, await readFigures()), guide, "deno task scaling --write renews both");
});
