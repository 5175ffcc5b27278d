/** What no single option can tell: options that contradict each other, and what production mode refuses. */
import { isAbsolute, resolve, sep } from "node:path";
import type { OptionKey, Secret, Settings } from "./options.ts";
import { showBytes, showDuration } from "./values.ts";
import type { Problem } from "./problems.ts";
import { isOpenToOthers } from "./secret_mode.ts";

/** A file as the configuration needs it. */
export interface ConfigFile {
  readonly text: string;
  /** Permission bits; null where the system has none. */
  readonly mode: number | null;
}

/** A value that was read, from where, and for secrets the file that holds it. */
export interface Chosen {
  readonly value: unknown;
  readonly from: string;
  readonly file: ConfigFile | null;
}

/** What the checks look at, and where they put what they find. */
export interface CheckInput {
  readonly settings: Settings;
  readonly chosen: ReadonlyMap<OptionKey, Chosen>;
  readonly cwd: string | undefined;
  readonly purpose: "serve" | "tool";
  /** Null: there is none. Undefined: it cannot be read, which was noted. */
  readonly readFile: (path: string, key: OptionKey) => ConfigFile | null | undefined;
  readonly problems: Problem[];
  readonly warnings: Problem[];
}

/** All checks. */
export function crossCheck(input: CheckInput): void {
  checkOrder(input);
  checkTls(input);
  checkSecretFiles(input);
  checkProfile(input);
  if (input.settings.production) checkProduction(input);
}

function problem(input: CheckInput, key: OptionKey, text: string): void {
  input.problems.push({ key, from: input.chosen.get(key)?.from ?? "", text });
}

function checkOrder(input: CheckInput): void {
  const { settings } = input;
  const { limits } = settings;
  const most = (
    key: OptionKey,
    value: number,
    bound: { key: OptionKey; value: number; shown: (n: number) => string },
  ) => {
    if (value <= bound.value) return;
    problem(input, key, `must be at most ${bound.key} (${bound.shown(bound.value)}): ${bound.shown(value)}`);
  };
  const ttlMax = { key: "limits.ttl_max", value: limits.ttlMaxMs, shown: showDuration } as const;
  most("limits.ttl_default", limits.ttlDefaultMs, ttlMax);
  const sessionTtl = { key: "session_ttl", value: settings.sessionTtlMs, shown: showDuration } as const;
  most("session_idle_ttl", settings.sessionIdleTtlMs, sessionTtl);
  const quota = { key: "limits.blob_quota_bytes", value: limits.blobQuotaBytes, shown: showBytes } as const;
  most("limits.blob_bytes_max", limits.blobBytesMax, quota);
  const supply = { key: "limits.key_packages_max", value: limits.keyPackagesMax, shown: String } as const;
  most("limits.key_packages_low", limits.keyPackagesLow, supply);
  // A sender may only fill a share of a queue: a payload above that could be sent to nobody.
  const share = Math.floor(limits.queueBytesMax * limits.queueSharePercent / 100);
  if (limits.payloadBytesMax > share) {
    const text = `must be at most ${limits.queueSharePercent} % of limits.queue_bytes_max (${share} bytes)`;
    problem(input, "limits.payload_bytes_max", text);
  }
}

function checkTls(input: CheckInput): void {
  const { tlsCert, tlsKey } = input.settings;
  if (tlsCert && !tlsKey) problem(input, "tls_key", `must be set together with tls_cert (${tlsCert})`);
  if (tlsKey && !tlsCert) problem(input, "tls_cert", `must be set together with tls_key (${tlsKey})`);
  if (tlsCert && input.readFile(tlsCert, "tls_cert") === null) {
    problem(input, "tls_cert", `there is no file ${tlsCert}`);
  }
  const keyPath = tlsKey ?? `${input.settings.dataDir}/tls/server.key`;
  const file = input.readFile(keyPath, "tls_key");
  if (file === null && tlsKey) problem(input, "tls_key", `there is no file ${tlsKey}`);
  if (file) checkMode(input, "tls_key", { path: keyPath, file });
}

function checkSecretFiles(input: CheckInput): void {
  for (const key of ["auth_token", "db_key"] as const) {
    const chosen = input.chosen.get(key);
    if (!chosen?.file) continue;
    const path = (chosen.value as Secret).path ?? "the configuration file";
    checkMode(input, key, { path, file: chosen.file });
  }
}

function checkMode(
  input: CheckInput,
  key: OptionKey,
  { path, file }: { path: string; file: ConfigFile },
): void {
  if (file.mode === null || !isOpenToOthers(path, file.mode)) return;
  const mode = (file.mode & 0o777).toString(8).padStart(4, "0");
  const text = `others than the owner have access to ${path} (mode ${mode}); make it 0600`;
  const found = { key, from: input.chosen.get(key)?.from ?? "", text };
  (input.settings.production ? input.problems : input.warnings).push(found);
}

function checkProfile({ settings, chosen, problems, warnings }: CheckInput): void {
  if (settings.limitsProfile === "default") return;
  const found = { key: "limits_profile", from: chosen.get("limits_profile")?.from ?? "" };
  const text = `${settings.limitsProfile} is for measuring: it leaves nearly nothing limited`;
  if (settings.production) problems.push({ ...found, text: `${text}, and is refused in production` });
  else warnings.push({ ...found, text });
}

function checkProduction(input: CheckInput): void {
  const { settings } = input;
  for (const key of ["allow_no_auth_token", "allow_plaintext_store"] as const) {
    if (input.chosen.get(key)?.value === true) problem(input, key, "is refused in production; remove it");
  }
  const missing = (key: "auth_token" | "db_key", variable: string) => {
    if (input.purpose !== "serve" || input.chosen.has(key)) return;
    if (input.problems.some((other) => other.key === key)) return;
    problem(
      input,
      key,
      `is not set, and production makes no secrets by itself: run \`qpq-server init\`, or set ${variable} or ${variable}_FILE`,
    );
  };
  missing("auth_token", "QPQ_AUTH_TOKEN");
  missing("db_key", "QPQ_DB_KEY");
  const path = settings.dbKey?.path;
  if (path && !settings.allowKeyInDataDir && isInside(path, settings.dataDir, input.cwd)) {
    problem(
      input,
      "db_key",
      `${path} is inside the data folder, where every copy of the folder takes it along: move it, or set allow_key_in_data_dir`,
    );
  }
}

/** Is `path` under `folder`? By name only: links are not followed. */
function isInside(path: string, folder: string, cwd: string | undefined): boolean {
  const base = cwd ?? (isAbsolute(path) && isAbsolute(folder) ? "/" : Deno.cwd());
  const inner = resolve(base, path);
  const outer = resolve(base, folder);
  return inner === outer || inner.startsWith(outer.endsWith(sep) ? outer : outer + sep);
}
