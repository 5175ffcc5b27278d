/** The source tree as data: its files, their lines without comments, and who imports whom, types and workers included. */
import assert from "node:assert/strict";
import { join, relative } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

/** The repository's folder. */
export const ROOT = fileURLToPath(new URL("../../", import.meta.url));

/** Never a part of the source, in a tree without git. */
const NOT_SOURCE = new Set([".git", "data", "state", "dist", "coverage", "node_modules"]);

/** One import, or one worker started. */
export interface Edge {
  /** Paths are relative to the repository, with slashes. */
  readonly from: string;
  /** A path, or what the file wrote when that is no file of this repository: `npm:…`, `node:…`, a name. */
  readonly to: string;
  /** As written. */
  readonly specifier: string;
  /** Counted from 1. */
  readonly line: number;
}

/** Every file of the repository: what git tracks, and what it would track. */
export async function sourceFiles(): Promise<string[]> {
  const args = ["-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "-z"];
  const listed = await new Deno.Command("git", { args, stderr: "null" }).output().catch(() => null);
  const files = listed?.success
    ? new TextDecoder().decode(listed.stdout).split("\0").filter((path) => path !== "")
    : await Array.fromAsync(filesBelow(""));
  const there = await Promise.all(files.map((path) => Deno.stat(join(ROOT, path)).catch(() => null)));
  return [...new Set(files.filter((_, index) => there[index]?.isFile))].sort();
}

async function* filesBelow(folder: string): AsyncGenerator<string> {
  for await (const { name, isDirectory, isFile } of Deno.readDir(join(ROOT, folder))) {
    const path = folder === "" ? name : `${folder}/${name}`;
    if (isDirectory && !NOT_SOURCE.has(name)) yield* filesBelow(path);
    else if (isFile) yield path;
  }
}

/** The text of a file of the repository. */
export function readSource(path: string): string {
  return Deno.readTextFileSync(join(ROOT, path));
}

/** A file's lines; comments are blanked, so that line numbers stay. */
export function codeLines(path: string): string[] {
  let inBlock = false;
  return readSource(path).split("\n").map((line) => {
    const text = line.trim();
    if (!inBlock && text.startsWith("/*")) inBlock = true;
    if (inBlock) {
      if (text.includes("*/")) inBlock = false;
      return "";
    }
    return text.startsWith("//") ? "" : line.replace(/\s\/\/ .*$/, "");
  });
}

interface Info {
  readonly modules: readonly {
    readonly specifier: string;
    readonly error?: string;
    readonly dependencies?: readonly {
      readonly specifier: string;
      readonly code?: Reference;
      readonly type?: Reference;
    }[];
  }[];
}

interface Reference {
  readonly specifier?: string;
  readonly error?: string;
  readonly span: { readonly start: { readonly line: number } };
}

/** All imports of `files` and of what they import, as `deno info` sees them, and the workers that they start. */
export async function importGraph(files: readonly string[]): Promise<Edge[]> {
  const edges: Edge[] = [];
  for (const { specifier, error, dependencies = [] } of (await denoInfo(files)).modules) {
    const from = pathOf(specifier);
    if (from === null) continue;
    assert.equal(error, undefined, `${from}: ${error}`);
    for (const dependency of dependencies) {
      const { specifier: written } = dependency;
      const reference = dependency.code ?? dependency.type!;
      assert.equal(reference.error, undefined, `${from}: ${reference.error}`);
      const to = pathOf(reference.specifier ?? written) ?? written;
      edges.push({ from, to, specifier: written, line: reference.span.start.line + 1 });
    }
    edges.push(...workersOf(from));
  }
  return edges;
}

/** Asks about all files at once, through a file that imports each of them. */
async function denoInfo(files: readonly string[]): Promise<Info> {
  const folder = await Deno.makeTempDir({ prefix: "qpq-graph-" });
  try {
    const all = join(folder, "all.ts");
    const lines = files.map((path) => `import ${JSON.stringify(pathToFileURL(join(ROOT, path)).href)};\n`);
    await Deno.writeTextFile(all, lines.join(""));
    const args = ["info", "--json", "--frozen", `--config=${join(ROOT, "deno.json")}`, all];
    const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args, cwd: ROOT }).output();
    assert.ok(success, new TextDecoder().decode(stderr));
    return JSON.parse(new TextDecoder().decode(stdout)) as Info;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** The path of a file of this repository; null for anything else. */
function pathOf(specifier: string): string | null {
  if (!specifier.startsWith("file:")) return null;
  const path = relative(ROOT, fileURLToPath(specifier)).replaceAll("\\", "/");
  return path.startsWith("..") ? null : path;
}

/** Modules that run in workers are named by `new URL("./x.ts", import.meta.url)`: an import in all but form. */
function workersOf(from: string): Edge[] {
  return codeLines(from).flatMap((text, index) =>
    [...text.matchAll(/new URL\("(\.{1,2}\/[^"]+\.ts)", import\.meta\.url\)/g)].map(([, specifier]) => {
      const to = pathOf(new URL(specifier!, pathToFileURL(join(ROOT, from))).href);
      assert.ok(to, `${from}:${index + 1} names a file outside the repository`);
      return { from, to, specifier: specifier!, line: index + 1 };
    })
  );
}

/** Everything that can be reached from `roots`, they included. */
export function reachable(edges: readonly Edge[], roots: Iterable<string>): Set<string> {
  const next = Map.groupBy(edges, (edge) => edge.from);
  const reached = new Set<string>(roots);
  // A set's iteration goes on to what is added meanwhile.
  for (const path of reached) for (const { to } of next.get(path) ?? []) reached.add(to);
  return reached;
}
