/** The three places where options are written: names are matched with the table, values stay as they are. */
import { environmentName, flagName, OPTION_KEYS, type OptionKey, optionOf } from "./options.ts";
import { type Problem, unknownText } from "./problems.ts";
import { parseToml } from "./toml.ts";

/** A value as it was found, before it is read. */
export interface Found {
  readonly key: OptionKey;
  /** Not the value itself but the path of a file that holds it (`*_file`). */
  readonly inFile: boolean;
  readonly raw: unknown;
  /** `--listen`, `QPQ_LISTEN`, `qpq-server.toml line 3`. */
  readonly from: string;
  readonly layer: "flag" | "environment" | "configuration";
}

/** What a place held, and what is wrong with it. */
export interface Source {
  readonly found: readonly Found[];
  readonly problems: readonly Problem[];
}

/** Variables with our prefix that are not options: the client's, and what Kubernetes and Docker put there. */
const OTHER_VARIABLES = new Set(["QPQ_PASSWORD"]);
const SERVICE_LINKS =
  /^QPQ_(?:[A-Z0-9_]+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT(?:_\d+_(?:TCP|UDP)\w*)?)$/;

type Names = ReadonlyMap<string, { key: OptionKey; inFile: boolean }>;

/** Is the option a secret, which may also come from a file? */
export function isSecret(key: OptionKey): boolean {
  return optionOf(key).type === "secret";
}

/** Every name that may be written, as `name` makes it of the key, with the `_file` names of secrets. */
function namesOf(name: (key: string) => string, keys: readonly OptionKey[]): Names {
  const names = new Map<string, { key: OptionKey; inFile: boolean }>();
  for (const key of keys) {
    names.set(name(key), { key, inFile: false });
    if (isSecret(key)) names.set(name(`${key}_file`), { key, inFile: true });
  }
  return names;
}

const FLAGS = namesOf((key) => `--${flagName(key)}`, OPTION_KEYS);
const VARIABLES = namesOf(environmentName, OPTION_KEYS);
const FILE_KEYS = namesOf((key) => key, OPTION_KEYS.filter((key) => !optionOf(key).notInFile));

function unknown(name: string, from: string, what: { kind: string; known: Names }): Problem {
  return { key: name, from, text: unknownText(what.kind, name, [...what.known.keys()]) };
}

/** Options from the command line, by flag name with or without dashes; true is a flag without a value. */
export function fromFlags(flags: Readonly<Record<string, string | boolean | undefined>>): Source {
  const found: Found[] = [];
  const problems: Problem[] = [];
  for (const [written, raw] of Object.entries(flags)) {
    if (raw === undefined) continue;
    const name = `--${written.replace(/^--/, "")}`;
    const option = FLAGS.get(name);
    if (option) found.push({ ...option, raw, from: name, layer: "flag" });
    else problems.push(unknown(name, "", { kind: "flag", known: FLAGS }));
  }
  return { found, problems };
}

/** Options from variables; an empty one counts as unset. */
export function fromEnvironment(env: Readonly<Record<string, string | undefined>>): Source {
  const found: Found[] = [];
  const problems: Problem[] = [];
  const set = new Map<string, string>();
  for (const [name, value] of Object.entries(env)) if (value && value.trim() !== "") set.set(name, value);
  for (const [name, raw] of set) {
    if (!name.startsWith("QPQ_") || OTHER_VARIABLES.has(name)) continue;
    const option = VARIABLES.get(name);
    if (option) found.push({ ...option, raw, from: name, layer: "environment" });
    else if (!SERVICE_LINKS.test(name)) {
      problems.push(unknown(name, "", { kind: "variable", known: VARIABLES }));
    }
  }
  for (const key of OPTION_KEYS) {
    const also = optionOf(key).alsoEnvironment;
    const raw = also && !set.has(environmentName(key)) ? set.get(also) : undefined;
    if (also && raw !== undefined) found.push({ key, inFile: false, raw, from: also, layer: "environment" });
  }
  return { found, problems };
}

/** Options from the text of the configuration file at `path`. */
export function fromToml(path: string, text: string): Source {
  const parsed = parseToml(text);
  if (!parsed.ok) {
    const from = `${path} line ${parsed.line}`;
    return { found: [], problems: [{ key: "config", from, text: parsed.text }] };
  }
  const found: Found[] = [];
  const problems: Problem[] = [];
  for (const [name, { raw, line }] of parsed.values) {
    const from = line > 0 ? `${path} line ${line}` : path;
    const option = FILE_KEYS.get(name);
    if (option) found.push({ ...option, raw, from, layer: "configuration" });
    else if (name === "config") problems.push({ key: name, from, text: "cannot be set in the file itself" });
    else problems.push(unknown(name, from, { kind: "option", known: FILE_KEYS }));
  }
  return { found, problems };
}
