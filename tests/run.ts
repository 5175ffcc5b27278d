/**
 * Runs `deno test` with the arguments given, shows its output as it comes, and ends with the plain line
 * `N passed, N failed`. Keeps the exit code; no test at all is a failure.
 *
 * Asked for all of `tests`, files that use engine quiche in their own process have one each, beside the others: its
 * native binding keeps handles of the first isolate that loads it on a thread, and a second one, of the next file there,
 * ends the whole process. (A server has one isolate that loads it.)
 *
 * Types are checked beside all of them: no test would begin before that was done, on one processor.
 *
 * With `--parallel` twice as many files as there are processors run at once, unless DENO_JOBS says otherwise: those that
 * kill and start processes wait for half of their time.
 */
import { join } from "node:path";

const TESTS = "tests";
/** How a test says that it is about that engine; those in tests/cli start programs. */
const USES_QUICHE = /\bquiche\b|\btestEngines\b/;
const FOLDERS = ["contract", "scenario", "unit"];

interface Outcome {
  readonly code: number;
  readonly passed: number;
  readonly failed: number;
}

async function filesApart(folder: string): Promise<string[]> {
  const found: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    const path = join(folder, name);
    if (isDirectory) found.push(...await filesApart(path));
    else if (name.endsWith("_test.ts") && USES_QUICHE.test(await Deno.readTextFile(path))) found.push(path);
  }
  return found.sort();
}

/** One `deno test`. `show` gets what it prints. */
async function test(args: readonly string[], show: (chunk: Uint8Array) => Promise<void>): Promise<Outcome> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["test", ...args],
    env: { DENO_JOBS: Deno.env.get("DENO_JOBS") ?? `${navigator.hardwareConcurrency * 2}` },
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const decoder = new TextDecoder();
  let tail = "";
  for await (const chunk of child.stdout) {
    await show(chunk);
    tail = (tail + decoder.decode(chunk, { stream: true })).slice(-4000);
  }
  const { code } = await child.status;
  // deno-lint-ignore no-control-regex -- colours
  const summary = /(\d+) passed[^|]*\| (\d+) failed/.exec(tail.replaceAll(/\x1b\[[0-9;]*m/g, ""));
  const [passed, failed] = [Number(summary?.[1] ?? 0), Number(summary?.[2] ?? 0)];
  if (!summary) console.log(`deno test ended without a summary, with code ${code}: ${args.at(-1)}`);
  return { code, passed, failed };
}

async function print(bytes: Uint8Array): Promise<void> {
  for (let written = 0; written < bytes.length;) written += await Deno.stdout.write(bytes.subarray(written));
}

/** One after another; each shows what it printed when it has ended. */
async function testApart(files: readonly string[]): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  for (const file of files) {
    const chunks: Uint8Array[] = [];
    const args = [...Deno.args.filter((arg) => arg !== TESTS && arg !== "--parallel"), "--no-check", file];
    outcomes.push(await test(args, (chunk) => Promise.resolve(void chunks.push(chunk))));
    for (const chunk of chunks) await print(chunk);
  }
  return outcomes;
}

/** The types of all of them, which is one failure at most; says what is wrong, and nothing else. */
async function check(): Promise<Outcome> {
  const child = new Deno.Command(Deno.execPath(), { args: ["check", "--quiet", "--frozen", TESTS] }).spawn();
  const { code } = await child.status;
  return { code, passed: 0, failed: code === 0 ? 0 : 1 };
}

const all = Deno.args.includes(TESTS);
const apart = all ? (await Promise.all(FOLDERS.map((name) => filesApart(join(TESTS, name))))).flat() : [];
const ofAll = all ? ["--no-check", `--ignore=${apart.join(",")}`] : [];
const outcomes = (await Promise.all([
  test([...ofAll, ...Deno.args], print).then((outcome) => [outcome]),
  testApart(apart),
  ...(all ? [check().then((outcome) => [outcome])] : []),
])).flat();
const sum = (of: "passed" | "failed") => outcomes.reduce((total, outcome) => total + outcome[of], 0);
console.log(`${sum("passed")} passed, ${sum("failed")} failed`);
const code = outcomes.find((outcome) => outcome.code !== 0)?.code ?? 0;
Deno.exit(code !== 0 ? code : sum("passed") === 0 ? 1 : 0);
