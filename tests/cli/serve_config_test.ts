/** Configuration that cannot be used: every problem at once, by key, exit code 2, and nothing made. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { type Ended, Program } from "../support/program.ts";
import { tempFolder } from "../support/temp_folder.ts";

const DB_KEY = "ab".repeat(32);

/** Lines that name a problem. */
function problems(ended: Ended): string[] {
  return ended.err.split("\n").filter((line) => line.startsWith("  ")).map((line) => line.trim());
}

async function names(path: string): Promise<string[]> {
  return (await Array.fromAsync(Deno.readDir(path))).map((entry) => entry.name).sort();
}

async function writeSecret(path: string, text: string, mode = 0o600): Promise<string> {
  await Deno.writeTextFile(path, text, { mode });
  await Deno.chmod(path, mode);
  return path;
}

Deno.test("problems of the file, the environment and the flags are told all at once, each with its place", async () => {
  await using folder = await tempFolder();
  const toml = `lissten = "0.0.0.0:7000"\n\n[limits]\nttl_max = "1 fortnight"\npayload_byte_max = "1 MiB"\n`;
  await Deno.writeTextFile(join(folder.path, "qpq-server.toml"), toml);
  const ended = await Program.run(["serve", "--metrics-listen", "nowhere", "--opaque-workers", "0"], {
    cwd: folder.path,
    env: { QPQ_DRAIN_TIMEOUT: "soon", QPQ_DATADIR: "/tmp", RUST_LOG: "loud" },
  });
  assert.equal(ended.code, 2);
  const wanted = [
    /^lissten \(qpq-server\.toml line 1\): unknown option; did you mean listen\?$/,
    /^limits\.ttl_max \(qpq-server\.toml line 4\): /,
    /^limits\.payload_byte_max \(qpq-server\.toml line 5\): .*did you mean limits\.payload_bytes_max\?$/,
    /^QPQ_DATADIR: unknown variable; did you mean QPQ_DATA_DIR\?$/,
    /^drain_timeout \(QPQ_DRAIN_TIMEOUT\): /,
    /^log \(RUST_LOG\): /,
    /^metrics_listen \(--metrics-listen\): /,
    /^opaque_workers \(--opaque-workers\): /,
  ];
  assert.match(ended.err, /Cannot use the configuration: 8 problems\n/);
  for (const pattern of wanted) {
    assert.equal(
      problems(ended).filter((line) => pattern.test(line)).length,
      1,
      `${pattern} in\n${ended.err}`,
    );
  }
  assert.deepEqual(await names(folder.path), ["qpq-server.toml"]);
});

Deno.test("a file that is named must exist, and one that is no TOML is told with its line", async () => {
  await using folder = await tempFolder();
  const missing = await Program.run(["serve", "--config", "other.toml"], { cwd: folder.path });
  assert.equal(missing.code, 2);
  assert.match(missing.err, /config \(--config\): there is no file other\.toml/);
  await Deno.writeTextFile(
    join(folder.path, "qpq-server.toml"),
    `listen = "127.0.0.1:0"\nproduction = tru\n`,
  );
  const broken = await Program.run(["serve"], { cwd: folder.path });
  assert.equal(broken.code, 2);
  assert.match(broken.err, /config \(qpq-server\.toml line 2\): /);
});

Deno.test("flags win over the environment, the environment over the file", async () => {
  await using folder = await tempFolder();
  const toml = `data_dir = "from-file"\nlisten = "nowhere:1"\nlog_format = "human"\n`;
  await Deno.writeTextFile(join(folder.path, "qpq-server.toml"), toml.replace("nowhere", "127.0.0.1"));
  await using program = new Program(["serve", "--listen", "127.0.0.1:0"], {
    cwd: folder.path,
    env: { QPQ_DATA_DIR: "from-env", QPQ_LISTEN: "127.0.0.1:2" },
  });
  const [, port] = await program.logged(/INFO .*listening listen=127\.0\.0\.1:(\d+)/);
  assert.ok(Number(port) > 2);
  assert.deepEqual(await names(folder.path), ["from-env", "qpq-server.toml"]);
  program.signal("SIGTERM");
  await program.ended();
});

Deno.test("production makes no secrets: it names both that are missing", async () => {
  await using folder = await tempFolder();
  const ended = await Program.run(["serve"], { cwd: folder.path, env: { QPQ_PRODUCTION: "true" } });
  assert.equal(ended.code, 2);
  assert.match(ended.err, /auth_token: is not set.*`qpq-server init`.*QPQ_AUTH_TOKEN or QPQ_AUTH_TOKEN_FILE/);
  assert.match(ended.err, /db_key: is not set.*`qpq-server init`.*QPQ_DB_KEY or QPQ_DB_KEY_FILE/);
  assert.deepEqual(await names(folder.path), []);
});

Deno.test("production refuses insecure modes, weak file modes and a key beside its data, each by name", async () => {
  await using folder = await tempFolder();
  assert.equal((await Program.run(["init"], { cwd: folder.path })).code, 0);
  for (const file of ["secrets/auth-token", "secrets/db-key", "tls/server.key"]) {
    await Deno.chmod(join(folder.path, "data", file), 0o644);
  }
  const ended = await Program.run(["serve", "--allow-no-auth-token", "--allow-plaintext-store"], {
    cwd: folder.path,
    env: { QPQ_PRODUCTION: "true" },
  });
  assert.equal(ended.code, 2);
  const wanted = [
    /^allow_no_auth_token \(--allow-no-auth-token\): is refused in production/,
    /^allow_plaintext_store \(--allow-plaintext-store\): is refused in production/,
    /^auth_token .*access to \.\/data\/secrets\/auth-token \(mode 0644\); make it 0600/,
    /^db_key .*access to \.\/data\/secrets\/db-key \(mode 0644\); make it 0600/,
    /^tls_key: .*access to \.\/data\/tls\/server\.key \(mode 0644\); make it 0600/,
    /^db_key .*is inside the data folder.*allow_key_in_data_dir/,
  ];
  for (const pattern of wanted) {
    assert.equal(
      problems(ended).filter((line) => pattern.test(line)).length,
      1,
      `${pattern} in\n${ended.err}`,
    );
  }
  assert.equal(problems(ended).length, wanted.length, ended.err);
});

Deno.test("production refuses an empty database key and an empty token", async () => {
  await using folder = await tempFolder();
  const key = await writeSecret(join(folder.path, "key"), "\n");
  const token = await writeSecret(join(folder.path, "token"), "");
  const ended = await Program.run(["serve", "--db-key-file", key, "--auth-token-file", token], {
    cwd: folder.path,
    env: { QPQ_PRODUCTION: "true" },
  });
  assert.equal(ended.code, 2);
  assert.equal(problems(ended).length, 2, ended.err);
  assert.match(ended.err, /db_key \(--db-key-file\): the file .*key /);
  assert.match(ended.err, /auth_token \(--auth-token-file\): the file .*token /);
});

Deno.test("production starts with secrets outside the data folder, and its log is JSON", async () => {
  await using folder = await tempFolder();
  const key = await writeSecret(join(folder.path, "key"), DB_KEY);
  const token = await writeSecret(join(folder.path, "token"), "a token of the operator");
  await using program = new Program(["serve", "--listen", "127.0.0.1:0"], {
    cwd: folder.path,
    env: { QPQ_PRODUCTION: "true", QPQ_DB_KEY_FILE: key, QPQ_AUTH_TOKEN_FILE: token },
  });
  await program.logged(new RegExp(`"command":"[^"]*--auth-token-file ${token} --ping"`));
  program.signal("SIGTERM");
  assert.equal((await program.ended()).code, 0);
  assert.deepEqual(await names(join(folder.path, "data", "secrets")), []);
  assert.equal(program.out, "", "what a log collector reads is JSON alone");
  assert.ok(!(program.out + program.err).includes("a token of the operator"));
});

Deno.test("insecure modes start with the warnings that operators look for", async () => {
  await using folder = await tempFolder();
  const words = ["serve", "--listen", "127.0.0.1:0", "--allow-no-auth-token", "--allow-plaintext-store"];
  await using program = new Program(words, { cwd: folder.path });
  await program.logged(/"msg":"listening"/);
  program.signal("SIGTERM");
  assert.equal((await program.ended()).code, 0);
  const warnings = program.log.filter((line) => line.level === "warn").map((line) => line.msg);
  assert.ok(warnings.includes("running without QPQ_AUTH_TOKEN"));
  assert.ok(warnings.includes("db_key is empty; SQL store will be plaintext"));
  assert.doesNotMatch(program.out, /auth-token/);
});

Deno.test("a secret on the command line works and is warned about without being shown", async () => {
  await using folder = await tempFolder();
  const token = "token-on-the-command-line";
  await using program = new Program(["serve", "--listen", "127.0.0.1:0", "--auth-token", token], {
    cwd: folder.path,
  });
  await program.logged(/"msg":"listening"/);
  program.signal("SIGTERM");
  await program.ended();
  assert.match(program.err, /"level":"warn".*auth_token \(--auth-token\): everyone on this machine can read/);
  assert.ok(!(program.out + program.err).includes(token));
});

Deno.test("a UDP port in use is told with the address and the option, exit code 1", async () => {
  await using folder = await tempFolder();
  using cleanup = new DisposableStack();
  const taken = Deno.listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  cleanup.defer(() => taken.close());
  const { port } = taken.addr as Deno.NetAddr;
  const ended = await Program.run(["serve", "--listen", `127.0.0.1:${port}`], { cwd: folder.path });
  assert.equal(ended.code, 1);
  assert.match(
    ended.err,
    new RegExp(`error: Cannot listen on 127\\.0\\.0\\.1:${port} \\(UDP\\).*in use.*QPQ_LISTEN`),
  );
});

Deno.test("a metrics port in use is told with the address and the option, exit code 1", async () => {
  await using folder = await tempFolder();
  using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = taken.addr;
  const words = [
    "serve",
    "--listen",
    "127.0.0.1:0",
    "--metrics-enabled",
    "--metrics-listen",
    `127.0.0.1:${port}`,
  ];
  const ended = await Program.run(words, { cwd: folder.path });
  assert.equal(ended.code, 1);
  assert.match(
    ended.err,
    new RegExp(`error: Cannot serve metrics on 127\\.0\\.0\\.1:${port}.*in use.*QPQ_METRICS_LISTEN`),
  );
});

Deno.test("an address that is not this machine's is told like a port in use", async () => {
  await using folder = await tempFolder();
  const ended = await Program.run(["serve", "--listen", "192.0.2.1:7000"], { cwd: folder.path });
  assert.equal(ended.code, 1);
  assert.match(ended.err, /error: Cannot listen on 192\.0\.2\.1:7000 \(UDP\).*QPQ_LISTEN/);
});

Deno.test("a certificate of the operator's that does not fit its key is told with both files", async () => {
  await using folder = await tempFolder();
  assert.equal((await Program.run(["init"], { cwd: folder.path })).code, 0);
  const [cert, key] = ["server.pem", "ca.key"].map((name) => join(folder.path, "data", "tls", name));
  const ended = await Program.run(
    ["serve", "--listen", "127.0.0.1:0", "--tls-cert", cert!, "--tls-key", key!],
    { cwd: folder.path },
  );
  assert.equal(ended.code, 1);
  assert.ok(ended.err.includes(cert!) && ended.err.includes(key!), ended.err);
});
