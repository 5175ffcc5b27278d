/**
 * `deno task compile [--target T]… [--inspect]`: builds `qpq-server` for every platform into `dist/`, checks what is
 * embedded, prints sizes and SHA-256. `qpq-client` is the same file under another name.
 *
 * Deno downloads its runtime for each target. Where that cannot be reached, `--inspect` shows and checks what would be
 * embedded: it compiles with the running deno in place of that runtime, and deletes the result, which is no server.
 */
import { createHash } from "node:crypto";
import { basename, dirname, join } from "node:path";
import { VERSION } from "../../mod/base/version.ts";

/** A platform: what Deno calls it, and how the SQLCipher binding names its binary. */
interface Target {
  readonly triple: string;
  readonly prebuild: string;
}

const TARGETS: readonly Target[] = [
  { triple: "x86_64-unknown-linux-gnu", prebuild: "linux-x64" },
  { triple: "aarch64-unknown-linux-gnu", prebuild: "linux-arm64" },
  { triple: "x86_64-apple-darwin", prebuild: "darwin-x64" },
  { triple: "aarch64-apple-darwin", prebuild: "darwin-arm64" },
  { triple: "x86_64-pc-windows-msvc", prebuild: "win32-x64" },
];

const TASKS = JSON.parse(await Deno.readTextFile("deno.json")).tasks as Record<string, { command: string }>;
/** Modules that only `new Worker` names: the compiler does not find them by itself. The task `fetch` lists them. */
const WORKERS = TASKS["fetch"]!.command.match(/mod\/\S+\.ts/g) ?? [];
/** Those of the task `qpq`, fixed when compiled. Native code passes them by: unit and container are the real fence. */
const PERMISSIONS = TASKS["qpq"]!.command.match(/--allow-\S+/g) ?? [];
/** The SQLCipher package with the binary of one platform. */
const ONE_PREBUILD_MB_MAX = 4;
const DIST = "dist";

/** Folder of each npm package in Deno's cache, whatever the registry. */
async function packageFolders(name: string): Promise<string[]> {
  const info = await deno(["info", "--json"]);
  const cache = JSON.parse(info).npmCache as string;
  const folders: string[] = [];
  for (const registry of entries(cache)) {
    for (const version of entries(join(cache, registry, name))) {
      folders.push(join(cache, registry, name, version));
    }
  }
  return folders;
}

function entries(folder: string): string[] {
  try {
    return [...Deno.readDirSync(folder)].filter((entry) => entry.isDirectory).map((entry) => entry.name);
  } catch {
    return [];
  }
}

/** Left out: other platforms' binaries, and a package's test data that overflows the compiler's stack. */
async function excluded(target: Target): Promise<string[]> {
  const paths: string[] = [];
  for (const folder of await packageFolders("@signalapp/sqlcipher")) {
    const prebuilds = join(folder, "prebuilds");
    for (const name of entries(prebuilds)) if (name !== target.prebuild) paths.push(join(prebuilds, name));
  }
  for (const folder of await packageFolders("bintrees")) paths.push(join(folder, "test"));
  return paths;
}

async function compile(target: Target, output: string, env: Record<string, string> = {}): Promise<string> {
  const exclusions = (await excluded(target)).flatMap((path) => ["--exclude", path]);
  const inclusions = WORKERS.flatMap((path) => ["--include", path]);
  const own = Object.keys(env).length > 0 ? [] : ["--target", target.triple];
  const args = ["compile", "--frozen", "--no-check", "--exclude-unused-npm", ...own, ...PERMISSIONS];
  return await deno([...args, ...inclusions, ...exclusions, "--output", output, "main.ts"], env);
}

async function deno(args: string[], env: Record<string, string> = {}): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args,
    env: { ...env, NO_COLOR: "1" },
  }).output();
  const decoder = new TextDecoder();
  if (code === 0) return decoder.decode(stdout) + (args[0] === "compile" ? decoder.decode(stderr) : "");
  throw new Error(decoder.decode(stderr));
}

/** What is wrong with an embedded file tree, as the compiler printed it: a whole folder is shown as `name/*`. */
function problemsOf(tree: string): string[] {
  const problems: string[] = [];
  const isThere = (path: string) =>
    tree.includes(` ${basename(path)} (`) || tree.includes(`${dirname(path)}/* (`);
  for (const path of ["main.ts", ...WORKERS]) {
    const [folder, name] = [basename(dirname(path)), basename(path)];
    if (!isThere(`${folder}/${name}`)) problems.push(`${path} is missing`);
  }
  for (const name of ["@signalapp/sqlcipher", "@serenity-kit/opaque", "ts-mls"]) {
    if (!tree.includes(`${name}/`)) problems.push(`${name} is missing`);
  }
  for (
    const name of ["tests", "ops", "secrets", "data", ".env", "better-sqlite3-multiple-ciphers", "fast-check"]
  ) {
    if (tree.includes(` ${name} (`) || tree.includes(` ${name}/`)) problems.push(`${name} is embedded`);
  }
  const binding = Number(/sqlcipher\/\* \(([\d.]+)MB/.exec(tree)?.[1]);
  if (!(binding < ONE_PREBUILD_MB_MAX)) {
    problems.push(`${binding} MB of SQLCipher: other platforms' binaries are embedded`);
  }
  return problems;
}

async function inspect(target: Target): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "qpq-compile-" });
  try {
    const output = join(folder, "qpq-server");
    const tree = await compile(target, output, { DENORT_BIN: Deno.execPath() });
    const problems = problemsOf(tree);
    const own = (await Deno.stat(output)).size - (await Deno.stat(Deno.execPath())).size;
    console.log(tree.slice(tree.indexOf("Embedded Files")).trimEnd());
    console.log(`\n${target.triple}: ${megabytes(own)} embedded beside Deno's runtime`);
    if (problems.length > 0) throw new Error(problems.join("; "));
    console.log("embedded as it should be");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function build(target: Target): Promise<string> {
  const windows = target.triple.includes("windows");
  const folder = join(DIST, target.triple);
  await Deno.mkdir(folder, { recursive: true });
  const output = join(folder, `qpq-server${windows ? ".exe" : ""}`);
  const problems = problemsOf(await compile(target, output));
  if (problems.length > 0) throw new Error(problems.join("; "));
  if (target.triple === Deno.build.target) await checkRuns(output);
  const sum = createHash("sha256").update(await Deno.readFile(output)).digest("hex");
  console.log(`${target.triple.padEnd(28)} ${megabytes((await Deno.stat(output)).size).padStart(9)}  ${sum}`);
  return `${sum}  ${target.triple}/${basename(output)}\n`;
}

/** A result that answers like deno itself was built around the wrong runtime. */
async function checkRuns(path: string): Promise<void> {
  const { stdout } = await new Deno.Command(path, { args: ["--version"] }).output();
  const text = new TextDecoder().decode(stdout).trim();
  if (text !== VERSION) throw new Error(`${path} --version says ${JSON.stringify(text)}, not ${VERSION}`);
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

async function main(args: string[]): Promise<number> {
  const named = args.flatMap((arg, i) => arg === "--target" ? [args[i + 1]] : []);
  const targets = TARGETS.filter(({ triple }) => named.length === 0 || named.includes(triple));
  if (targets.length === 0 || named.length > targets.length) {
    console.error(`error: the targets are ${TARGETS.map(({ triple }) => triple).join(", ")}`);
    return 2;
  }
  if (args.includes("--inspect")) {
    await inspect(
      named.length > 0 ? targets[0]! : TARGETS.find(({ triple }) => triple === Deno.build.target)!,
    );
    return 0;
  }
  let sums = "";
  for (const target of targets) {
    try {
      sums += await build(target);
    } catch (error) {
      const reason = error instanceof Error ? error.message.trim() : String(error);
      console.error(`error: ${target.triple} was not built:\n${reason}`);
      if (/denort|dns|download|error sending request/i.test(reason)) {
        console.error(
          "\nDeno's compile runtime could not be downloaded. Build where the network allows it, or set DENORT_BIN to a " +
            "downloaded one. `deno task compile --inspect` shows what would be embedded.",
        );
      }
      return 1;
    }
  }
  await Deno.writeTextFile(join(DIST, "SHA256SUMS"), sums);
  return 0;
}

try {
  Deno.exit(await main(Deno.args));
} catch (error) {
  console.error(`error: ${error instanceof Error ? error.message : error}`);
  Deno.exit(1);
}
