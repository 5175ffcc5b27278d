/**
 * Documents generated from the option table: .env.example and ops/configuration.md. `--write` writes them, without
 * it the program says whether the files are fresh:
 *
 *   deno run --allow-read=. --allow-write=.env.example,ops mod/config/describe.ts --write
 */
import { type LimitsProfile, profileKeys } from "./limits_profiles.ts";
import {
  buildSettings,
  environmentName,
  flagName,
  OPTION_KEYS,
  type OptionKey,
  optionOf,
  type OptionType,
  type Secret,
  type Settings,
  valueOf,
} from "./options.ts";
import { showAddress, showBytes, showDuration } from "./values.ts";
import type { NetAddress } from "../base/address.ts";

const COMMAND = "deno run --allow-read=. --allow-write=.env.example,ops mod/config/describe.ts --write";

/** How each type is written. */
const TYPE_TEXT: Record<OptionType, string> = {
  string: "text",
  boolean: "true or false",
  integer: "number",
  duration: "duration (`10s`, `5m`, `24h`, `30d`; seconds without a unit)",
  bytes: "size (`512KiB`, `2MiB`, `1GiB`; bytes without a unit)",
  address: "`host:port`, IPv6 as `[::]:port`",
  path: "path",
  list: "words separated by commas; an array in the file",
  enum: "one of",
  secret: "secret",
};

/** Does the default stand as it would be written, or is it words about what happens? */
function hasLiteralDefault(key: OptionKey): boolean {
  return optionOf(key).default !== null;
}

/** Text folded to lines as `deno fmt` folds Markdown: code in backticks stays whole. */
function fold(text: string, options: { first: string; rest: string; width: number }): string {
  const lines: string[] = [];
  let line = options.first;
  let empty = true;
  for (const [word] of text.matchAll(/(?:`[^`]*`|[^\s`])+/g)) {
    const space = empty || line.endsWith(" ") ? "" : " ";
    if (!empty && line.length + space.length + word.length > options.width) {
      lines.push(line);
      line = options.rest + word;
    } else line += space + word;
    empty = false;
  }
  return [...lines, line].join("\n");
}

const comment = (text: string) => fold(text, { first: "# ", rest: "# ", width: 100 });
const paragraph = (text: string) => fold(text, { first: "", rest: "", width: 110 });
const item = (text: string) => fold(text, { first: "- ", rest: "  ", width: 110 });

function applyText(key: OptionKey): string {
  return optionOf(key).apply === "live" ? "applied at a reload" : "applied at the next start";
}

/** The content of .env.example: every variable, commented out, with its default. */
export function envExample(): string {
  const blocks = [
    [
      comment("Every variable of qpq-server with its default. Copy to .env and uncomment what you change."),
      comment("An empty variable counts as unset. Variables win over qpq-server.toml, flags over variables."),
      comment(`Generated: ${COMMAND}`),
    ].join("\n"),
  ];
  for (const key of OPTION_KEYS) {
    const option = optionOf(key);
    const name = environmentName(key);
    const lines = [comment(option.text)];
    const values = option.valuesText ? `${option.valuesText}; ` : "";
    const also = option.alsoEnvironment ? `; else ${option.alsoEnvironment} is asked` : "";
    lines.push(comment(`(${values}${applyText(key)}${also})`));
    if (hasLiteralDefault(key)) lines.push(`#${name}=${option.defaultText}`);
    else lines.push(comment(`Default: ${option.defaultText}`), `#${name}=`);
    if (option.type === "secret") lines.push(comment("or a file that holds it:"), `#${name}_FILE=`);
    blocks.push(lines.join("\n"));
  }
  return blocks.join("\n\n") + "\n";
}

function tomlExample(): string {
  return [
    "```toml",
    'listen = "[::]:7000"',
    'db_key_file = "/etc/qpq/db-key"',
    "production = true",
    'tls_names = ["chat.example.org"]',
    "",
    "[backup]",
    'schedule = "03:30"',
    "",
    "[limits]",
    'ttl_max = "14d"',
    'blob_quota_bytes = "5GiB"',
    "```",
  ].join("\n");
}

function optionSection(key: OptionKey): string {
  const option = optionOf(key);
  const type = option.type === "enum" ? `one of ${option.valuesText}` : TYPE_TEXT[option.type];
  const range = option.valuesText && option.type !== "enum" ? `, ${option.valuesText}` : "";
  const name = environmentName(key);
  const secret = option.type === "secret";
  const variables = [name, ...(secret ? [`${name}_FILE`] : [])].map((each) => `\`${each}\``).join(" or ");
  const flags = [key, ...(secret ? [`${key}_file`] : [])].map((each) => `\`--${flagName(each)}\``).join(
    " or ",
  );
  const items = [
    `default: ${hasLiteralDefault(key) ? `\`${option.defaultText}\`` : option.defaultText}`,
    `value: ${type}${range}`,
    `variable: ${variables}${option.alsoEnvironment ? `, else \`${option.alsoEnvironment}\`` : ""}`,
    `flag: ${flags}`,
    ...(option.notInFile ? ["not in `qpq-server.toml`"] : []),
    ...(secret ? [`in \`qpq-server.toml\`: \`${key}\` or \`${key}_file\``] : []),
    applyText(key),
  ];
  return [`### ${key}`, paragraph(option.text), items.map(item).join("\n")].join("\n\n");
}

const INTRODUCTION = [
  "Every option can be set in four places; each wins over the one before: its default, the file `qpq-server.toml` in the working folder (or the one that `QPQ_CONFIG` or `--config` names), its environment variable, its flag. Without any configuration the server starts with secure defaults.",
  "An empty variable counts as unset. Unknown keys, unknown variables with the prefix `QPQ_` and unknown flags are errors, and all problems are told at once, by key and place. Keys of the groups `backup`, `federation` and `limits` are in the tables `[backup]`, `[federation]` and `[limits]`:",
];

const REMARKS = [
  "Secrets can also be in a file of their own (`auth_token_file`, `db_key_file`). A secret may have several lines: the first is the wanted one, the others are still accepted, so that it can be changed without a break. Files with secrets must belong to the server alone (mode 0600): in production others' access is an error, otherwise a warning.",
  "A reload (SIGHUP) reads file and secrets again, checks everything, and applies what is marked _applied at a reload_; it lists what waits for the next start. Variables and flags stay as they were at the start.",
  "With `production = true` the server refuses to start without an access token and a database key, with `allow_no_auth_token` or `allow_plaintext_store`, with the database key inside the data folder (unless `allow_key_in_data_dir`), or with secret files that others can read. It names each problem.",
];

/** The content of ops/configuration.md. */
export function configurationPage(): string {
  const general = OPTION_KEYS.filter((key) => !key.includes("."));
  const backup = OPTION_KEYS.filter((key) => key.startsWith("backup."));
  const federation = OPTION_KEYS.filter((key) => key.startsWith("federation."));
  const limits = OPTION_KEYS.filter((key) => key.startsWith("limits."));
  return [
    "# Configuration",
    `<!-- Generated: ${COMMAND} -->`,
    ...INTRODUCTION.map(paragraph),
    tomlExample(),
    ...REMARKS.map(paragraph),
    "## Options",
    ...general.map(optionSection),
    "## Backups",
    paragraph("How they are made, checked and restored is in [backup-restore.md](backup-restore.md)."),
    ...backup.map(optionSection),
    "## Federation",
    paragraph("Other servers whose users exchange messages with those of this one. Off by default."),
    ...federation.map(optionSection),
    "## Limits",
    paragraph("Whatever can grow has a maximum. An address means an IPv4 address or the /64 of an IPv6 one."),
    ...limits.map(optionSection),
    "## Profiles of limits",
    paragraph(
      '`limits_profile = "bench"` is for measuring with `qpq-client bench`, on a machine that serves nobody else. It changes these defaults:',
    ),
    profileKeys("bench").map((key) => `- \`${key}\`: \`${profileText("bench", key)}\``).join("\n"),
  ].join("\n\n") + "\n";
}

function profileText(profile: LimitsProfile, key: OptionKey): string {
  return showSetting(buildSettings(new Map([["limits_profile", profile]])), key);
}

/** A value as the program may show it: secrets only as set or not. */
export function showSetting(settings: Settings, key: OptionKey): string {
  const value = valueOf(settings, key);
  const option = optionOf(key);
  if (option.type === "secret") return value ? `set (${(value as Secret).from})` : "not set";
  if (value === null) return option.defaultText;
  if (option.type === "duration") return showDuration(value as number);
  if (option.type === "bytes") return showBytes(value as number);
  if (option.type === "address") return showAddress(value as NetAddress);
  return String(value);
}

/** Path and content of each generated document, from the root of the repository. */
export const DOCUMENTS: readonly { path: string; content: () => string }[] = [
  { path: ".env.example", content: envExample },
  { path: "ops/configuration.md", content: configurationPage },
];

function main(write: boolean): void {
  let stale = 0;
  for (const { path, content } of DOCUMENTS) {
    const url = new URL(`../../${path}`, import.meta.url);
    if (write) Deno.writeTextFileSync(url, content());
    else if (Deno.readTextFileSync(url) !== content()) {
      console.error(`${path} is stale: ${COMMAND}`);
      stale++;
    }
  }
  if (stale > 0) Deno.exitCode = 1;
}

if (import.meta.main) main(Deno.args.includes("--write"));
