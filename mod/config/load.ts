/**
 * Configuration from everywhere: defaults < qpq-server.toml < environment < flags. Pure but for the `readFile` it
 * is given. All problems are found before any is told; secrets are in none of them.
 */
import { messageOf } from "../base/errors.ts";
import { type Chosen, type ConfigFile, crossCheck } from "./checks.ts";
import {
  buildSettings,
  OPTION_KEYS,
  type OptionKey,
  optionOf,
  type Secret,
  type Settings,
  valueOf,
} from "./options.ts";
import { ConfigError, type Problem } from "./problems.ts";
import { type Found, fromEnvironment, fromFlags, fromToml, isSecret } from "./sources.ts";
import { Refusal } from "./values.ts";

export type { ConfigFile } from "./checks.ts";
export { ConfigError, type Problem, problemLine } from "./problems.ts";

/** What load() works on. */
export interface LoadInput {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** By flag name (`limits-ttl-max`, with or without dashes before it); true is a flag without a value. */
  readonly flags: Readonly<Record<string, string | boolean | undefined>>;
  /** Null when there is no such file; throws when it cannot be read. diskFile() in disk_file.ts is the real one. */
  readonly readFile: (path: string) => ConfigFile | null;
  /** What relative paths begin at. Default: the working folder. */
  readonly cwd?: string;
  /** `serve` (default) wants all that a server needs in production; `tool` does without secrets not made yet. */
  readonly purpose?: "serve" | "tool";
}

/** A configuration that can be used. */
export interface Loaded {
  readonly settings: Settings;
  /** Where each value came from; "" for defaults. */
  readonly sources: ReadonlyMap<OptionKey, string>;
  /** Worth a line in the log, no reason to stop. */
  readonly warnings: readonly Problem[];
  /** The configuration file, if one was read. */
  readonly configPath: string | null;
}

/** Loads, checks and types the configuration. Throws ConfigError with every problem. */
export function load(input: LoadInput): Loaded {
  const { problems, ...loaded } = inspect(input);
  if (problems.length > 0) throw new ConfigError(problems);
  return loaded;
}

/** Like {@link load}, for who tells the problems himself: what could not be used has its default in `settings`. */
export function inspect(input: LoadInput): Loaded & { readonly problems: readonly Problem[] } {
  return new Loading(input).run();
}

/**
 * The data folder that a configuration names, whatever else is wrong with it: a running server is found by it. What
 * cannot be read counts as not there.
 */
export function dataDirOf(input: LoadInput): string {
  const layers = [fromFlags(input.flags).found, fromEnvironment(input.env).found];
  const find = (key: OptionKey, found: readonly Found[]) => found.find((each) => each.key === key)?.raw;
  const path = String(find("config", layers.flat()) ?? optionOf("config").default).trim();
  let file: ConfigFile | null = null;
  try {
    file = input.readFile(path);
  } catch {
    // load() says so, where the file is needed.
  }
  if (file) layers.push(fromToml(path, file.text).found);
  return String(find("data_dir", layers.flat()) ?? optionOf("data_dir").default).trim();
}

/** Where the server keeps a secret that it made itself: `<data_dir>/secrets/auth-token`. */
export function managedSecretPath(dataDir: string, key: "auth_token" | "db_key"): string {
  return `${dataDir.replace(/(?<=.)\/+$/, "")}/secrets/${key.replaceAll("_", "-")}`;
}

/** Options in which two configurations differ, by when they can be applied. */
export function changedOptions(
  before: Settings,
  after: Settings,
): { live: OptionKey[]; restart: OptionKey[] } {
  const changed: { live: OptionKey[]; restart: OptionKey[] } = { live: [], restart: [] };
  for (const key of OPTION_KEYS) {
    const same = JSON.stringify(valueOf(before, key)) === JSON.stringify(valueOf(after, key));
    if (!same) changed[optionOf(key).apply].push(key);
  }
  return changed;
}

/** What is known while loading. */
class Loading {
  readonly #input: LoadInput;
  readonly #problems: Problem[] = [];
  readonly #warnings: Problem[] = [];
  readonly #chosen = new Map<OptionKey, Chosen>();
  #configPath: string | null = null;

  constructor(input: LoadInput) {
    this.#input = input;
  }

  run(): Loaded & { readonly problems: readonly Problem[] } {
    const flags = fromFlags(this.#input.flags);
    const variables = fromEnvironment(this.#input.env);
    const named = [...flags.found, ...variables.found].find((found) => found.key === "config");
    const file = this.#fromFile(named);
    this.#problems.push(...file.problems, ...variables.problems, ...flags.problems);
    for (const layer of [file.found, variables.found, flags.found]) this.#take(layer);
    this.#takeManagedSecrets();
    const settings = buildSettings(new Map([...this.#chosen].map(([key, { value }]) => [key, value])));
    crossCheck({
      settings,
      chosen: this.#chosen,
      cwd: this.#input.cwd,
      purpose: this.#input.purpose ?? "serve",
      readFile: (path, key) => this.#read(path, { key, from: this.#chosen.get(key)?.from ?? "" }),
      problems: this.#problems,
      warnings: this.#warnings,
    });
    return {
      settings,
      problems: this.#problems,
      sources: new Map(OPTION_KEYS.map((key) => [key, this.#chosen.get(key)?.from ?? ""])),
      warnings: this.#warnings,
      configPath: this.#configPath,
    };
  }

  /** The file that was named, which must exist, or the default one if it is there. */
  #fromFile(named: Found | undefined): { found: readonly Found[]; problems: readonly Problem[] } {
    const path = named ? String(named.raw).trim() : String(optionOf("config").default);
    const file = this.#read(path, { key: "config", from: named?.from ?? "" });
    if (file === null && named) {
      this.#problems.push({ key: "config", from: named.from, text: `there is no file ${path}` });
    }
    if (!file) return { found: [], problems: [] };
    this.#configPath = path;
    const source = fromToml(path, file.text);
    return { ...source, found: source.found.map((found) => ({ ...found, file })) };
  }

  /** Reads the values of one layer, over those of the layers below. A bad value is told even if it is overridden. */
  #take(layer: readonly (Found & { file?: ConfigFile })[]): void {
    for (const found of layer) {
      const twin = layer.find((other) => other.key === found.key && other.inFile !== found.inFile);
      if (twin) {
        if (found.inFile) this.#refuse(found, `is set together with ${twin.from}; set one of them`);
        continue;
      }
      const chosen = found.inFile ? this.#secretFromFile(found) : this.#readValue(found);
      if (chosen instanceof Refusal) this.#refuse(found, chosen.text);
      else if (chosen) this.#chosen.set(found.key, chosen);
    }
  }

  #readValue(found: Found & { file?: ConfigFile }): Chosen | Refusal {
    const value = optionOf(found.key).read(found.raw);
    if (value instanceof Refusal) return value;
    if (!isSecret(found.key)) return { value, from: found.from, file: null };
    if (found.layer === "flag") {
      const text = "everyone on this machine can read command lines; use a file or a variable";
      this.#warnings.push({ key: found.key, from: found.from, text });
    }
    const secret: Secret = { lines: value as string[], from: found.layer, path: null };
    return { value: secret, from: found.from, file: found.file ?? null };
  }

  #secretFromFile(found: Found): Chosen | Refusal | undefined {
    if (typeof found.raw !== "string" || found.raw.trim() === "") {
      return new Refusal("must be the path of a file");
    }
    const path = found.raw.trim();
    const file = this.#read(path, found);
    if (file === null) return new Refusal(`there is no file ${path}`);
    return file && this.#secretOf(found.key, { path, file, from: found.from, kind: "file" });
  }

  #secretOf(
    key: OptionKey,
    source: { path: string; file: ConfigFile; from: string; kind: "file" | "managed" },
  ): Chosen | Refusal {
    const lines = optionOf(key).read(source.file.text);
    if (lines instanceof Refusal) return new Refusal(`the file ${source.path} ${lines.text}`);
    const secret: Secret = { lines: lines as string[], from: source.kind, path: source.path };
    return { value: secret, from: source.from, file: source.file };
  }

  /** Secrets that are configured nowhere may be in the data folder, where the first start puts them. */
  #takeManagedSecrets(): void {
    const dataDir = String(this.#chosen.get("data_dir")?.value ?? optionOf("data_dir").default);
    for (const key of ["auth_token", "db_key"] as const) {
      if (this.#chosen.has(key) || this.#problems.some((problem) => problem.key === key)) continue;
      const path = managedSecretPath(dataDir, key);
      const file = this.#read(path, { key, from: "" });
      if (!file) continue;
      const chosen = this.#secretOf(key, { path, file, from: path, kind: "managed" });
      if (chosen instanceof Refusal) this.#problems.push({ key, from: "", text: chosen.text });
      else this.#chosen.set(key, chosen);
    }
  }

  /** Null: there is no such file. Undefined: it cannot be read, which is noted. */
  #read(path: string, about: { key: OptionKey; from: string }): ConfigFile | null | undefined {
    try {
      return this.#input.readFile(path);
    } catch (error) {
      const { key, from } = about;
      this.#problems.push({ key, from, text: `cannot read ${path}: ${messageOf(error)}` });
      return undefined;
    }
  }

  #refuse(found: Found, text: string): void {
    this.#problems.push({ key: found.key, from: found.from, text });
  }
}
