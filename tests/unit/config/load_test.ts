import assert from "node:assert/strict";
import {
  changedOptions,
  ConfigError,
  type ConfigFile,
  load,
  type Loaded,
  type LoadInput,
} from "../../../mod/config/load.ts";
import {
  defaultSettings,
  environmentName,
  flagName,
  OPTION_KEYS,
  type OptionKey,
  optionOf,
  valueOf,
} from "../../../mod/config/options.ts";

type Files = Record<string, string | ConfigFile>;

interface TestInput extends Partial<Omit<LoadInput, "readFile">> {
  files?: Files;
  toml?: string;
}

function loadFrom({ files = {}, toml, ...input }: TestInput): Loaded {
  const all: Files = { ...files, ...(toml === undefined ? {} : { "qpq-server.toml": toml }) };
  return load({
    env: {},
    flags: {},
    cwd: "/srv",
    ...input,
    readFile: (path) => {
      const file = all[path];
      if (file === undefined) return null;
      return typeof file === "string" ? { text: file, mode: 0o600 } : file;
    },
  });
}

/** Lines of the problems that `input` has. */
function problemsOf(input: TestInput): string[] {
  try {
    loadFrom(input);
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    return error.message.split("\n").slice(1).map((line) => line.trim());
  }
  assert.fail("The configuration was accepted");
}

/** For each option, two texts that can be written, other than the default, and a bad one. */
function examples(key: OptionKey): { good: [string, string]; bad: string } {
  const option = optionOf(key);
  const two = (good: [string, string], bad: string) => ({ good, bad });
  if (key === "backup.schedule") return two(["6h", "03:30"], "25:00");
  if (key === "opaque_suites") return two(["ristretto255,p256", "p256,ristretto255"], "p256");
  if (key === "backup.encrypt_to") return two([`age1${"q".repeat(58)}`, `age1${"p".repeat(58)}`], "alice");
  if (key === "federation.domain") return two(["a.example", "b.example"], "no domain");
  switch (option.type) {
    case "boolean":
      return two(["true", "true"], "perhaps");
    case "integer":
    case "duration":
    case "bytes": {
      const [low, high] = option.valuesText!.split(" to ");
      return two([option.defaultText === high ? low! : high!, low!], "99999999999999TiB");
    }
    case "address":
      return two(["127.0.0.1:1234", "[::1]:0"], "7000");
    case "list":
      return two(["a.example", "b.example"], ",");
    case "enum": {
      const others = option.valuesText!.split(", ").filter((value) => value !== option.default);
      return two([others[0]!, others.at(-1)!], "neither");
    }
    case "path":
      return two(["some/path", "other/path"], "");
    case "secret":
      return two(["first\nsecond", "third"], "a\0b");
    case "string":
      return two(["debug", "warn"], "shouting");
  }
}

/** Other options that must be as large for extreme values of one to be accepted; they do not matter here. */
const ROOM: Record<string, string> = {
  "limits-ttl-max": "365d",
  "session-ttl": "3650d",
  "limits-blob-quota-bytes": "100TiB",
  "limits-key-packages-max": "1000",
  "limits-queue-bytes-max": "1TiB",
  "limits-queue-share-percent": "100",
};
const LOW: Record<string, string> = {
  "limits-ttl-default": "1m",
  "session-idle-ttl": "1h",
  "limits-blob-bytes-max": "1MiB",
  "limits-key-packages-low": "0",
  "limits-payload-bytes-max": "64KiB",
};
const FILES: Files = { "some/path": "", "other/path": "", "tls": "" };

/** Flags that let any one option have any of its examples. */
function roomFor(key: OptionKey): Record<string, string> {
  const flags: Record<string, string> = { ...ROOM, ...LOW };
  if (key === "tls_cert") flags["tls-key"] = "tls";
  if (key === "tls_key") flags["tls-cert"] = "tls";
  delete flags[flagName(key)];
  return flags;
}

const withoutConfig = OPTION_KEYS.filter((key) => key !== "config");

Deno.test("load() gives the defaults when nothing is configured", () => {
  const loaded = loadFrom({});
  assert.deepEqual(loaded.settings, defaultSettings());
  assert.deepEqual(loaded.warnings, []);
  assert.equal(loaded.configPath, null);
  assert.equal(loaded.settings.limits.ttlMaxMs, 30 * 86_400_000);
});

for (const key of withoutConfig) {
  Deno.test(`load() reads ${key} from the file, the environment and a flag, each over the one before`, () => {
    const { good: [one, two] } = examples(key);
    const toml = `${key} = ${JSON.stringify(two)}`;
    const flags = roomFor(key);
    const valueIn = (input: TestInput) =>
      valueOf(loadFrom({ files: FILES, purpose: "tool", ...input }).settings, key);
    const plain = (value: unknown) => (value as { lines?: unknown } | null)?.lines ?? value;
    const fromFile = plain(valueIn({ toml, flags }));
    const fromEnvironment = plain(valueIn({ env: { [environmentName(key)]: two }, flags }));
    const fromFlag = plain(valueIn({ flags: { ...flags, [flagName(key)]: two } }));
    assert.deepEqual(fromEnvironment, fromFile);
    assert.deepEqual(fromFlag, fromFile);
    const first = plain(valueIn({ env: { [environmentName(key)]: one }, flags }));
    assert.notDeepEqual(first, valueOf(defaultSettings(), key));
    assert.deepEqual(plain(valueIn({ toml, env: { [environmentName(key)]: one }, flags })), first);
    const all = { toml, env: { [environmentName(key)]: two }, flags: { ...flags, [flagName(key)]: one } };
    assert.deepEqual(plain(valueIn(all)), first);
    assert.equal(loadFrom({ files: FILES, purpose: "tool", ...all }).sources.get(key), `--${flagName(key)}`);
  });

  Deno.test(`load() refuses a bad ${key} from everywhere, by key and place`, () => {
    const { bad } = examples(key);
    const lines = problemsOf({
      toml: `\n${key} = ${JSON.stringify(bad)}`,
      env: bad === "" ? {} : { [environmentName(key)]: bad },
      flags: { [flagName(key)]: bad },
    }).filter((line) => line.startsWith(`${key} (`));
    const places = ["qpq-server.toml line 2", environmentName(key), `--${flagName(key)}`];
    for (const place of bad === "" ? [places[0]!, places[2]!] : places) {
      assert.ok(
        lines.some((line) => line.startsWith(`${key} (${place}): `)),
        `${place}: ${lines.join("; ")}`,
      );
    }
  });
}

Deno.test("load() reports all problems at once", () => {
  const lines = problemsOf({
    toml: 'listen = "nowhere"\nlisen = 1\n[limits]\nttl_max = "1x"\n[limit]\nx = 1',
    env: { QPQ_LOG: "loud", QPQ_DATADIR: "x" },
    flags: { "metrics-listen": "9090", "metric-enabled": true },
  });
  assert.deepEqual(lines.map((line) => line.split(":")[0]).sort(), [
    "--metric-enabled",
    "QPQ_DATADIR",
    "limit.x (qpq-server.toml line 6)",
    "limits.ttl_max (qpq-server.toml line 4)",
    "lisen (qpq-server.toml line 2)",
    "listen (qpq-server.toml line 1)",
    "log (QPQ_LOG)",
    "metrics_listen (--metrics-listen)",
  ]);
});

Deno.test("load() names the nearest known name for an unknown one", () => {
  const lines = problemsOf({
    toml: "lisen = 1\n[limits]\nttl_mx = 1",
    env: { QPQ_DATADIR: "x", QPQ_LIMITS_TTL: "1" },
    flags: { "--metric-enabled": true },
  });
  for (
    const name of ["listen", "limits.ttl_max", "QPQ_DATA_DIR", "QPQ_LIMITS_TTL_MAX", "--metrics-enabled"]
  ) {
    assert.ok(lines.some((line) => line.endsWith(`did you mean ${name}?`)), `${name}: ${lines.join("; ")}`);
  }
});

Deno.test("load() knows a limit that was written outside its table", () => {
  assert.match(problemsOf({ toml: "queue_depth_max = 5" })[0]!, /did you mean limits\.queue_depth_max\?/);
});

Deno.test("load() lets other programs' variables be", () => {
  loadFrom({
    env: {
      PATH: "/bin",
      QPQ_PASSWORD: "for the client",
      QPQ_SERVICE_HOST: "10.0.0.1",
      QPQ_PORT: "udp://10.0.0.1:7000",
      QPQ_SERVER_PORT_7000_UDP_ADDR: "10.0.0.1",
      QPQ_SERVER_SERVICE_PORT_METRICS: "9090",
    },
  });
});

Deno.test("load() takes an empty variable as unset", () => {
  const env = { QPQ_LISTEN: "", QPQ_AUTH_TOKEN: "  ", QPQ_UNKNOWN: "", QPQ_LOG: "", RUST_LOG: "debug" };
  const { settings } = loadFrom({ env, toml: 'listen = "127.0.0.1:1"' });
  assert.deepEqual([settings.listen.port, settings.authToken, settings.log], [1, null, "debug"]);
});

Deno.test("load() asks RUST_LOG only when QPQ_LOG is not set, and over the file", () => {
  const toml = 'log = "error"';
  assert.equal(loadFrom({ toml, env: { RUST_LOG: "debug" } }).settings.log, "debug");
  assert.equal(loadFrom({ toml, env: { RUST_LOG: "debug", QPQ_LOG: "warn" } }).settings.log, "warn");
  assert.match(problemsOf({ env: { RUST_LOG: "loud" } })[0]!, /^log \(RUST_LOG\): /);
});

Deno.test("load() reads TOML's own types", () => {
  const { settings } = loadFrom({
    toml:
      'production = false\ntls_names = ["a", "b"]\ndrain_timeout = 5\n[limits]\npayload_bytes_max = 1_048_576',
  });
  assert.deepEqual(settings.tlsNames, ["a", "b"]);
  assert.equal(settings.drainTimeoutMs, 5000);
  assert.equal(settings.limits.payloadBytesMax, 1048576);
});

Deno.test("load() takes a flag without a value as true", () => {
  assert.equal(
    loadFrom({ flags: { "limits-shared-addresses": true } }).settings.limits.sharedAddresses,
    true,
  );
  assert.equal(loadFrom({ flags: { "metrics-enabled": undefined } }).settings.metricsEnabled, false);
});

Deno.test("load() reads the file that is named, which must exist", () => {
  const files = { "/etc/qpq.toml": 'log = "warn"', "x.toml": 'log = "error"' };
  const loaded = loadFrom({ files, env: { QPQ_CONFIG: "/etc/qpq.toml" } });
  assert.equal(loaded.settings.log, "warn");
  assert.equal(loaded.configPath, "/etc/qpq.toml");
  const flag = loadFrom({ files, env: { QPQ_CONFIG: "/etc/qpq.toml" }, flags: { config: "x.toml" } });
  assert.equal(flag.settings.log, "error");
  assert.deepEqual(problemsOf({ env: { QPQ_CONFIG: "/nope" } }), [
    "config (QPQ_CONFIG): there is no file /nope",
  ]);
  assert.match(problemsOf({ toml: 'config = "x"' })[0]!, /cannot be set in the file itself/);
});

Deno.test("load() tells the line of a broken file together with other problems", () => {
  const lines = problemsOf({ toml: 'log = "info"\nlisten = ', env: { QPQ_LISTEN: "x" } });
  assert.match(lines[0]!, /^config \(qpq-server\.toml line 2\): is no valid TOML/);
  assert.match(lines[1]!, /^listen \(QPQ_LISTEN\)/);
});

Deno.test("load() reports a file that cannot be read", () => {
  const readFile = (): never => {
    throw new Error("Permission denied");
  };
  assert.throws(
    () => load({ env: { QPQ_AUTH_TOKEN_FILE: "/secret" }, flags: {}, readFile }),
    (error) =>
      error instanceof ConfigError && /auth_token .*cannot read \/secret: Permission/.test(error.message),
  );
});

Deno.test("load() reads secrets of several lines from variables and files", () => {
  const files = { "/run/secrets/token": "\n new \n\nold\n" };
  const { settings } = loadFrom({
    files,
    env: { QPQ_AUTH_TOKEN_FILE: "/run/secrets/token", QPQ_DB_KEY: "k1\nk2" },
  });
  assert.deepEqual(settings.authToken, { lines: ["new", "old"], from: "file", path: "/run/secrets/token" });
  assert.deepEqual(settings.dbKey, { lines: ["k1", "k2"], from: "environment", path: null });
});

Deno.test("load() takes a secret from the highest place, value or file", () => {
  const files = { "/f": "from file" };
  const { settings } = loadFrom({ files, env: { QPQ_AUTH_TOKEN: "x" }, flags: { "auth-token-file": "/f" } });
  assert.deepEqual(settings.authToken?.lines, ["from file"]);
  const toml = 'auth_token_file = "/f"';
  assert.deepEqual(loadFrom({ files, toml, env: { QPQ_AUTH_TOKEN: "x" } }).settings.authToken?.lines, ["x"]);
});

Deno.test("load() refuses a secret and its file in one place", () => {
  const env = { QPQ_AUTH_TOKEN: "planted", QPQ_AUTH_TOKEN_FILE: "/f" };
  const lines = problemsOf({ files: { "/f": "planted" }, env });
  assert.deepEqual(lines, [
    "auth_token (QPQ_AUTH_TOKEN_FILE): is set together with QPQ_AUTH_TOKEN; set one of them",
  ]);
});

Deno.test("load() refuses secret files that are missing or empty", () => {
  const env = { QPQ_AUTH_TOKEN_FILE: "/missing", QPQ_DB_KEY_FILE: "/empty" };
  assert.deepEqual(problemsOf({ files: { "/empty": "\n \n" }, env }), [
    "auth_token (QPQ_AUTH_TOKEN_FILE): there is no file /missing",
    "db_key (QPQ_DB_KEY_FILE): the file /empty must not be empty",
  ]);
});

Deno.test("load() finds the secrets that the first start made", () => {
  const files = { "/var/qpq/secrets/auth-token": "token", "/var/qpq/secrets/db-key": "ab".repeat(32) };
  const { settings, sources } = loadFrom({ files, env: { QPQ_DATA_DIR: "/var/qpq/" } });
  assert.deepEqual(settings.authToken, {
    lines: ["token"],
    from: "managed",
    path: "/var/qpq/secrets/auth-token",
  });
  assert.equal(sources.get("db_key"), "/var/qpq/secrets/db-key");
  assert.match(
    problemsOf({ files: { "./data/secrets/db-key": "" } })[0]!,
    /db_key: the file .* must not be empty/,
  );
});

Deno.test("load() warns of secret files that others can read, and refuses them in production", () => {
  const files = {
    "/token": { text: "token", mode: 0o644 },
    "/key": { text: "key", mode: 0o640 },
    "/key.pem": { text: "pem", mode: 0o660 },
    "/cert.pem": { text: "pem", mode: 0o644 },
  };
  const env = {
    QPQ_AUTH_TOKEN_FILE: "/token",
    QPQ_DB_KEY_FILE: "/key",
    QPQ_TLS_CERT: "/cert.pem",
    QPQ_TLS_KEY: "/key.pem",
  };
  const { warnings } = loadFrom({ files, env });
  assert.deepEqual(warnings.map(({ key }) => key).sort(), ["auth_token", "db_key", "tls_key"]);
  const lines = problemsOf({ files, env: { ...env, QPQ_PRODUCTION: "true" } });
  assert.equal(lines.length, 3);
  assert.match(lines.join("\n"), /\/token \(mode 0644\); make it 0600/);
});

Deno.test("load() takes what systemd hands over, which an ACL shows as readable by the group", () => {
  const folder = "/run/credentials/qpq-server.service";
  const of = (path: string, mode: number) =>
    problemsOf({
      files: { [path]: { text: "token", mode } },
      env: { QPQ_PRODUCTION: "true", QPQ_AUTH_TOKEN_FILE: path },
    })
      .filter((line) => line.includes("make it 0600"));
  assert.deepEqual(of(`${folder}/auth-token`, 0o440), []);
  assert.equal(of(`${folder}/auth-token`, 0o444).length, 1);
  assert.equal(of(`${folder}/../../../etc/auth-token`, 0o440).length, 1);
  assert.equal(of("/etc/qpq/auth-token", 0o440).length, 1);
});

Deno.test("load() takes systems without permission bits as they are", () => {
  const files = { "/token": { text: "token", mode: null } };
  assert.deepEqual(loadFrom({ files, env: { QPQ_AUTH_TOKEN_FILE: "/token" } }).warnings, []);
});

Deno.test("load() looks at the permissions of a configuration file only when it holds a secret", () => {
  const of = (text: string) =>
    loadFrom({ files: { "qpq-server.toml": { text, mode: 0o644 } } }).warnings.length;
  assert.deepEqual([of('log = "info"'), of('auth_token = "abc"')], [0, 1]);
});

Deno.test("load() warns of a secret on the command line", () => {
  assert.match(loadFrom({ flags: { "auth-token": "x" } }).warnings[0]!.text, /command lines/);
});

Deno.test("load() shows a secret in no message", () => {
  const secret = "planted-secret";
  const lines = problemsOf({
    toml: `auth_token = "${secret}\\u0000"\ndb_key = ["${secret}"]\nbad = `,
    env: { QPQ_AUTH_TOKEN: `${secret}\0`, QPQ_DB_KEY: `${secret}\x7f`, QPQ_TOKEN: secret, QPQ_LISTEN: "x" },
    flags: { "auth-token": `${secret}\x01`, "db-key": `${secret}\x01`, "tokn": secret },
  });
  assert.ok(lines.length >= 6);
  assert.doesNotMatch(lines.join("\n"), /planted/);
});

const PRODUCTION = { QPQ_PRODUCTION: "true", QPQ_AUTH_TOKEN: "token", QPQ_DB_KEY: "key" };

Deno.test("production starts with a token and a key from outside the data folder", () => {
  assert.equal(loadFrom({ env: PRODUCTION }).settings.production, true);
  const env = {
    ...PRODUCTION,
    QPQ_DB_KEY: "",
    QPQ_DB_KEY_FILE: "/etc/qpq/db-key",
    QPQ_DATA_DIR: "/etc/qpq-data",
  };
  loadFrom({ env, files: { "/etc/qpq/db-key": "key" } });
});

Deno.test("production names every reason not to start", () => {
  const lines = problemsOf({
    env: { QPQ_PRODUCTION: "true", QPQ_ALLOW_NO_AUTH_TOKEN: "true", QPQ_ALLOW_PLAINTEXT_STORE: "true" },
  });
  assert.deepEqual(lines.map((line) => line.split(/[ :]/)[0]), [
    "allow_no_auth_token",
    "allow_plaintext_store",
    "auth_token",
    "db_key",
  ]);
  assert.match(lines[2]!, /qpq-server init.*QPQ_AUTH_TOKEN or QPQ_AUTH_TOKEN_FILE/);
});

Deno.test("production lets tools run before there are secrets", () => {
  assert.equal(loadFrom({ env: { QPQ_PRODUCTION: "true" }, purpose: "tool" }).settings.dbKey, null);
});

Deno.test("production wants the database key outside the data folder, unless it is allowed inside", () => {
  const cases: [string, string, boolean][] = [
    ["./data", "./data/secrets/db-key", true],
    ["./data", "/srv/data/my/key", true],
    ["/srv/data/", "data/../data/key", true],
    ["./data", "./data-keys/key", false],
    ["./data", "./data/../key", false],
    ["/", "/etc/key", true],
  ];
  for (const [dataDir, path, inside] of cases) {
    const input = {
      env: { ...PRODUCTION, QPQ_DB_KEY: "", QPQ_DATA_DIR: dataDir, QPQ_DB_KEY_FILE: path },
      files: { [path]: "key" },
    };
    if (!inside) loadFrom(input);
    else {
      assert.match(problemsOf(input)[0]!, /^db_key .*inside the data folder/, path);
      loadFrom({ ...input, flags: { "allow-key-in-data-dir": true } });
    }
  }
});

Deno.test("production refuses the managed database key until it is moved or allowed", () => {
  const files = { "./data/secrets/db-key": "key" };
  const env = { QPQ_PRODUCTION: "true", QPQ_AUTH_TOKEN: "token" };
  assert.match(problemsOf({ files, env })[0]!, /^db_key \(\.\/data\/secrets\/db-key\)/);
});

Deno.test("load() refuses options that contradict each other", () => {
  const cases: [Record<string, string>, RegExp][] = [
    [{ QPQ_TLS_CERT: "/c" }, /^tls_key: must be set together with tls_cert/],
    [{ QPQ_TLS_KEY: "/c" }, /^tls_cert: must be set together with tls_key/],
    [{ QPQ_LIMITS_TTL_MAX: "1d" }, /^limits\.ttl_default: must be at most limits\.ttl_max \(1d\): 30d/],
    [{ QPQ_SESSION_TTL: "1d" }, /^session_idle_ttl: must be at most session_ttl/],
    [{ QPQ_LIMITS_BLOB_BYTES_MAX: "2GiB" }, /^limits\.blob_bytes_max \(QPQ_.*\): must be at most/],
    [{ QPQ_LIMITS_KEY_PACKAGES_MAX: "10" }, /^limits\.key_packages_low: /],
    [
      { QPQ_LIMITS_QUEUE_SHARE_PERCENT: "1", QPQ_LIMITS_QUEUE_BYTES_MAX: "8MiB" },
      /^limits\.payload_bytes_max: /,
    ],
  ];
  for (const [env, expected] of cases) {
    const lines = problemsOf({ env, files: { "/c": "pem" } });
    assert.equal(lines.length, 1, lines.join("; "));
    assert.match(lines[0]!, expected);
  }
});

Deno.test("load() wants certificate files that are named to exist", () => {
  const lines = problemsOf({ env: { QPQ_TLS_CERT: "/c", QPQ_TLS_KEY: "/k" } });
  assert.deepEqual(lines, [
    "tls_cert (QPQ_TLS_CERT): there is no file /c",
    "tls_key (QPQ_TLS_KEY): there is no file /k",
  ]);
});

Deno.test("changedOptions() sorts differences by when they can be applied", () => {
  const before = loadFrom({ env: { QPQ_AUTH_TOKEN: "a", QPQ_LISTEN: "h:1" } }).settings;
  const after = loadFrom({ env: { QPQ_AUTH_TOKEN: "b", QPQ_LOG: "warn", QPQ_LISTEN: "h:2" } }).settings;
  assert.deepEqual(changedOptions(before, after), { live: ["auth_token", "log"], restart: ["listen"] });
  assert.deepEqual(changedOptions(before, before), { live: [], restart: [] });
});
