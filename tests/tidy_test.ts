/**
 * The rules of the house that no compiler sees: who may import whom, files that nothing reaches, what may stand
 * only in one place, words that may stand nowhere, sizes and names. A message names the file, the line and the rule.
 */
import assert from "node:assert/strict";
import {
  codeLines,
  type Edge,
  importGraph,
  reachable,
  readSource,
  sourceFiles,
} from "./support/source_tree.ts";

/** Which folders of mod/ a folder may import, beside itself. Also every folder that mod/ may have. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  base: [],
  observe: ["base"],
  config: ["base"],
  protocol: ["base"],
  transport: ["base"],
  store: ["base"],
  auth: ["base", "observe", "store"],
  delivery: ["base", "observe", "store"],
  federation: ["base", "observe", "protocol", "transport", "store", "delivery"],
  client: ["base", "protocol", "transport"],
  admin: ["base", "observe", "config", "store", "auth", "transport"],
  server: [
    ...["base", "observe", "config", "protocol", "transport", "store", "auth", "delivery"],
    ...["federation", "admin"],
  ],
  cli: ["base", "observe", "config", "server", "client", "admin"],
};
/** Folders inside those. */
const INNER_FOLDERS = [
  "cli/client",
  "client/bench",
  "client/examples",
  "observe/status_page_assets",
  "server/handlers",
  "store/file",
  "store/postgres",
  "store/sqlcipher",
];
/** Folders at the top, and inside tests/. */
const TOP_FOLDERS = [".ci", ".github", "mod", "ops", "tests"];
const TEST_FOLDERS = ["bench", "cli", "contract", "fixtures", "fuzz", "scenario", "sim", "support", "unit"];

/** Folders that are also under MIT (LICENSE-MIT), and the packages that are not compatible with that. */
const MIT_FOLDERS = ["base", "protocol", "transport", "client"];
const AGPL_PACKAGES = ["@signalapp/sqlcipher"];

/** Tables that are read by row, and may be longer than LINES_MAX. */
const LONG_TABLES = ["mod/config/options.ts", "mod/store/store.ts"];
const LINES_MAX = 400;

/** Packages in deno.json that only other packages import: named there so that their version is ours to choose. */
const FOR_PACKAGES = ["@hpke/core"];

/** Tests of something else than the .ts file of the same name. */
const OTHER_SUBJECTS: Readonly<Record<string, string>> = {
  "tests/unit/auth/devices_test.ts": "mod/auth/authenticator.ts",
  "tests/unit/auth/login_test.ts": "mod/auth/logins.ts",
  "tests/unit/auth/resume_test.ts": "mod/auth/logins.ts",
  "tests/unit/base/fake_clock_test.ts": "tests/support/fake_clock.ts",
  "tests/unit/client/mls_vectors_test.ts": "mod/client/mls_messages.ts",
  "tests/unit/protocol/generated_test.ts": "mod/protocol/generate.ts",
  "tests/unit/protocol/protocol_md_test.ts": "mod/protocol/PROTOCOL.md",
};

/** In pieces, so that this file passes its own test. */
const BANNED_WORDS = [
  /\bTO(?:)DO\b/,
  /\bFIX(?:)ME\b/,
  /\bX(?:)XX\b/,
  /\bnot (?:)implemented\b/i,
  /(?<![\w.~*])\/work\/(?:)\w/,
];
const REGISTRY_HOSTS =
  /registry\.(?:)npmjs|registry\.(?:)yarnpkg|\bjsr\.(?:)io\b|npm(?:)mirror|artifact(?:)ory|verdac(?:)cio/i;
/** Not written by hand: base64 and vectors hold any word. */
const NOT_PROSE = /^(deno\.lock|mod\/protocol\/generate\.lock|tests\/fixtures\/.*)$/;

const SQL =
  /\b(SELECT\s.*\bFROM\b|INSERT (OR \w+ )?INTO|DELETE FROM|UPDATE \w+ SET|CREATE (TABLE|INDEX)|PRAGMA \w)/;
const PROCESS = /\bDeno\.(exit\(|env\b|addSignalListener|removeSignalListener)|\bprocess\.(exit|env|on)\b/;

const FILES = await sourceFiles();
const MODULES = FILES.filter((path) => /^mod\/.*\.ts$/.test(path));
const GRAPH = await importGraph(["main.ts", ...MODULES]);
const EDGES = GRAPH.filter((edge) => edge.from === "main.ts" || edge.from.startsWith("mod/"));
/** Scripts that a task of deno.json runs; not a part of the program. */
const SCRIPTS = scriptsOfTasks();

function scriptsOfTasks(): string[] {
  const { tasks } = JSON.parse(readSource("deno.json")) as { tasks: Record<string, { command: string }> };
  const commands = Object.values(tasks).flatMap(({ command }) => command.split(/&&|;/));
  return commands.flatMap((command) => /\bdeno run\b.*?\s((?:\w+\/)*\w+\.ts)/.exec(command)?.[1] ?? []);
}

/** `base` for mod/base/x.ts; undefined outside mod/. */
function folderOf(path: string): string | undefined {
  return /^mod\/(\w+)\//.exec(path)?.[1];
}

/** Fails with all breaches at once. */
function none(rule: string, breaches: readonly string[]): void {
  assert.ok(breaches.length === 0, `${rule}\n${breaches.map((breach) => `  ${breach}`).join("\n")}`);
}

/** `path:line text` for every line of `path` that `pattern` finds. */
function find(path: string, pattern: RegExp, lines: readonly string[]): string[] {
  return lines.flatMap((text, index) => pattern.test(text) ? [`${path}:${index + 1} ${text.trim()}`] : []);
}

function rank(edge: Edge): string {
  return `${edge.from}:${edge.line} imports ${edge.to}`;
}

Deno.test("the import table holds, for types too", () => {
  const breaches = EDGES.flatMap((edge) => {
    const to = folderOf(edge.to);
    if (edge.from === "main.ts") {
      return to === undefined || to === "cli" ? [] : [`${rank(edge)}: main.ts may import only cli`];
    }
    const from = folderOf(edge.from)!;
    if (to === undefined || to === from) return [];
    const allowed = MAY_IMPORT[from] ?? [];
    return allowed.includes(to)
      ? []
      : [`${rank(edge)}: ${from} may import only ${allowed.join(", ") || "nothing"}`];
  });
  none("Who may import whom (MAY_IMPORT in tests/tidy_test.ts):", breaches);
});

Deno.test("the program imports nothing from tests, and packages only by their names in deno.json", () => {
  const { imports } = JSON.parse(readSource("deno.json")) as { imports: Record<string, string> };
  const named = (specifier: string) =>
    Object.keys(imports).some((name) => specifier === name || specifier.startsWith(folderOfPackage(name)));
  const breaches = EDGES.filter(({ to, specifier }) => {
    if (to.startsWith("mod/") || specifier.startsWith("node:")) return false;
    return !named(specifier);
  }).map(rank);
  none("What is neither a file of mod/, nor of Node, nor an import of deno.json:", breaches);
});

Deno.test("no package in deno.json goes unused", () => {
  const { imports } = JSON.parse(readSource("deno.json")) as { imports: Record<string, string> };
  const text = FILES.filter((path) => /^(main|mod\/.*|tests\/.*)\.ts$/.test(path)).map(readSource).join("\n");
  none(
    "Imports of deno.json that no file names:",
    Object.keys(imports).filter((name) => !FOR_PACKAGES.includes(name)).filter((name) =>
      !text.includes(`"${name}"`) && !text.includes(`"${folderOfPackage(name)}`)
    ),
  );
});

/** What paths inside a package begin with: an import map's name may end in a slash or not. */
function folderOfPackage(name: string): string {
  return name.endsWith("/") ? name : `${name}/`;
}

Deno.test("mod/client reaches no server code", () => {
  const roots = MODULES.filter((path) => folderOf(path) === "client");
  const allowed = ["client", ...MAY_IMPORT["client"]!];
  const breaches = [...reachable(EDGES, roots)].filter((path) => {
    const folder = folderOf(path);
    return folder !== undefined && !allowed.includes(folder);
  });
  none(`The client may only reach ${allowed.join(", ")}:`, breaches);
});

Deno.test("folders under MIT reach no AGPL package, and LICENSE-MIT names them", () => {
  const roots = MODULES.filter((path) => MIT_FOLDERS.includes(folderOf(path)!));
  const reached = reachable(EDGES, roots);
  const breaches = EDGES.filter(({ from, specifier }) =>
    reached.has(from) && AGPL_PACKAGES.some((name) => specifier === name || specifier.startsWith(`${name}/`))
  ).map(rank);
  none("What mod/base, protocol, transport and client reach must be usable under MIT:", breaches);
  const named = [...readSource("LICENSE-MIT").matchAll(/^\s+mod\/(\w+)$/gm)].map(([, folder]) => folder);
  assert.deepEqual(
    named,
    MIT_FOLDERS,
    "LICENSE-MIT names other folders than MIT_FOLDERS in tests/tidy_test.ts",
  );
});

Deno.test("LICENSE is the whole AGPL version 3", () => {
  const text = readSource("LICENSE");
  assert.match(text, /^\s*GNU AFFERO GENERAL PUBLIC LICENSE\n\s*Version 3, 19 November 2007\n/);
  for (let section = 0; section <= 17; section++) assert.match(text, new RegExp(`^ {2}${section}\\. `, "m"));
  assert.match(text, /END OF TERMS AND CONDITIONS/);
});

Deno.test("no file under mod/ is dead", () => {
  const examples = MODULES.filter((path) => path.startsWith("mod/client/examples/"));
  const reached = reachable(EDGES, ["main.ts", "mod/client/mod.ts", ...SCRIPTS, ...examples]);
  none(
    "Nothing reaches these from main.ts, mod/client/mod.ts, its examples, or a task of deno.json:",
    MODULES.filter((path) => !reached.has(path)),
  );
});

Deno.test("SQL is only in mod/store", () => {
  const outside = MODULES.filter((path) => folderOf(path) !== "store");
  none("No SQL above the store:", outside.flatMap((path) => find(path, SQL, codeLines(path))));
});

Deno.test("only main.ts exits, reads the environment and hears signals", () => {
  none(
    "Deno.exit, Deno.env and signal listeners are main.ts' alone:",
    MODULES.flatMap((path) => find(path, PROCESS, codeLines(path))),
  );
});

Deno.test("nothing in mod/ prints", () => {
  const silent = MODULES.filter((path) => !SCRIPTS.includes(path));
  none(
    "The program logs, and the command line prints through its terminal; console is for scripts:",
    silent.flatMap((path) => find(path, /\bconsole\.\w+\(/, codeLines(path))),
  );
});

Deno.test("nothing is left for later, and no file knows the machine it was written on", () => {
  const prose = FILES.filter((path) => !NOT_PROSE.test(path));
  const breaches = prose.flatMap((path) => {
    const lines = readSource(path).split("\n");
    return BANNED_WORDS.flatMap((word) => find(path, word, lines));
  });
  none("Banned words:", breaches);
});

Deno.test("no lock holds an address", () => {
  const locks = FILES.filter((path) => path.endsWith(".lock"));
  const breaches = locks.flatMap((path) => find(path, /https?:/, readSource(path).split("\n")));
  none("A lock made through a mirror names it:", breaches);
});

Deno.test("no file names a registry", () => {
  none(
    "Which registry is used is a matter of the machine:",
    FILES.flatMap((path) => find(path, REGISTRY_HOSTS, readSource(path).split("\n"))),
  );
});

Deno.test(`files in mod/ have at most ${LINES_MAX} lines`, () => {
  const breaches = MODULES.filter((path) => !path.endsWith("_pb.ts") && !LONG_TABLES.includes(path))
    .map((path) => ({ path, lines: readSource(path).split("\n").length - 1 }))
    .filter(({ lines }) => lines > LINES_MAX)
    .map(({ path, lines }) => `${path} has ${lines}`);
  none(
    `Beyond ${LINES_MAX} lines there is a second noun in a file (or it is a table: LONG_TABLES):`,
    breaches,
  );
  none(
    "LONG_TABLES that are gone or no longer long:",
    LONG_TABLES.filter((path) =>
      !MODULES.includes(path) || readSource(path).split("\n").length - 1 <= LINES_MAX
    ),
  );
});

Deno.test("every folder is known to the house", () => {
  const folders = new Set(
    FILES.filter((path) => path.includes("/")).map((path) => path.replace(/\/[^/]+$/, "")),
  );
  const breaches = [...folders].filter((folder) => {
    const [top, second, ...rest] = folder.split("/");
    if (!TOP_FOLDERS.includes(top!)) return true;
    if (second === undefined) return false;
    if (top === "tests") return !TEST_FOLDERS.includes(second);
    if (top !== "mod") return false;
    return !(second in MAY_IMPORT) ||
      (rest.length > 0 && !INNER_FOLDERS.includes([second, ...rest].join("/")));
  });
  none("Folders that tests/tidy_test.ts does not know:", breaches);
});

Deno.test("files are named in snake_case, and none is an index", () => {
  const named = [...MODULES, ...FILES.filter((path) => /^tests\/.*\.ts$/.test(path))];
  const breaches = named.filter((path) => {
    const name = path.replace(/.*\//, "");
    return !/^[a-z0-9]+(_[a-z0-9]+)*\.ts$/.test(name) || name === "index.ts";
  });
  none("snake_case.ts, and no barrels:", breaches);
});

Deno.test("unit tests mirror mod/", () => {
  const known = new Set(FILES);
  const breaches = FILES.filter((path) => /^tests\/unit\/.*_test\.ts$/.test(path)).filter((path) => {
    const subject = OTHER_SUBJECTS[path];
    if (subject !== undefined) return !known.has(subject);
    // A folder with a public API (mod.ts) may have tests of that under any name.
    if (known.has(path.replace(/^tests\/unit\//, "mod/").replace(/[^/]+$/, "mod.ts"))) return false;
    // opaque_rfc9807_test.ts tests opaque_rfc9807.ts if there is one, else one side of opaque.ts.
    const words = path.replace(/^tests\/unit\//, "mod/").replace(/_test\.ts$/, "").split("_");
    return !words.some((_, index) => known.has(`${words.slice(0, index + 1).join("_")}.ts`));
  });
  none("Tests whose name is not that of a file in mod/ (or one of OTHER_SUBJECTS):", breaches);
});

Deno.test("ops/guarantees.md names tests that are there", () => {
  const named = readSource("ops/guarantees.md").match(/tests\/[\w/*]+(\.ts)?/g)!;
  const breaches = named.filter((name) => {
    const pattern = new RegExp(`^${name.replaceAll("*", "\\w*").replace(".", "\\.")}`);
    return !FILES.some((path) => pattern.test(path));
  });
  none("Neither files nor folders:", breaches);
});
