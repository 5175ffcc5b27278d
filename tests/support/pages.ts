/**
 * Pages for operators as tests see them: the commands in their ```sh blocks with the output that a ```text block right
 * behind promises, and a machine to run them on. On it `qpq-server`, `qpq-client` and Deno's tasks are this checkout's
 * program, `systemctl` and `journalctl` do to a real server process what they would do to the unit, and the page's
 * ports and paths (7000, 9090, /var/lib/qpq, /etc/qpq) are those of a temporary folder.
 */
import { join } from "node:path";
import { DENO_RUN_ARGS, freeTcpPort, freeUdpPort } from "./server_process.ts";
import { ROOT } from "./source_tree.ts";
import { type TempFolder, tempFolder } from "./temp_folder.ts";

/** A fenced block of commands. */
export interface Block {
  /** `sh` is run; `shell` needs what no test has (Docker, another machine). */
  readonly fence: "sh" | "shell";
  readonly code: string;
  /** What follows as ```text; null when nothing is promised. */
  readonly expected: string | null;
  /** Of its first command, counted from 1. */
  readonly line: number;
}

/** A heading of level two and what is below it; the first has the page's own title. */
export interface Section {
  readonly title: string;
  /** As links name it. */
  readonly anchor: string;
  readonly blocks: readonly Block[];
}

/** Cuts a page into sections and their blocks. */
export function parsePage(text: string): Section[] {
  const lines = text.split("\n");
  const sections: { title: string; anchor: string; blocks: Block[] }[] = [];
  for (let at = 0; at < lines.length; at++) {
    const heading = /^##? (.+)$/.exec(lines[at]!);
    if (heading) sections.push({ title: heading[1]!, anchor: anchorOf(heading[1]!), blocks: [] });
    const fence = /^```(\S*)/.exec(lines[at]!);
    if (!fence) continue;
    const end = lines.indexOf("```", at + 1);
    if (end < 0) throw new Error(`Line ${at + 1}: a block without an end`);
    const content = lines.slice(at + 1, end).join("\n");
    const blocks = sections.at(-1)?.blocks ?? [];
    const last = blocks.at(-1);
    if (fence[1] === "sh" || fence[1] === "shell") {
      blocks.push({ fence: fence[1], code: content, expected: null, line: at + 2 });
    } else if (fence[1] === "text" && last?.expected === null && followsBlock(lines, at)) {
      blocks[blocks.length - 1] = { ...last, expected: content };
    }
    at = end;
  }
  return sections;
}

/** Is there nothing but empty lines between the end of a command block and line `at`? */
function followsBlock(lines: readonly string[], at: number): boolean {
  let before = at - 1;
  while (before >= 0 && lines[before] === "") before--;
  if (lines[before] !== "```") return false;
  const opening = lines.slice(0, before).findLast((line) => line.startsWith("```"));
  return opening === "```sh" || opening === "```shell";
}

/** The anchor that readers of Markdown give a heading. */
export function anchorOf(title: string): string {
  return title.toLowerCase().replaceAll(/[^\w\- ]/g, "").replaceAll(" ", "-");
}

/** What is another at every run, and on every machine, and what stands for it. */
const VARYING: readonly (readonly [pattern: RegExp, mark: string])[] = [
  [/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+Z\s+/gm, ""],
  [/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z/g, "TIME"],
  [/^\d\d:\d\d /gm, "HH:MM "],
  [/\b([0-9a-f]{12,}\b|[0-9a-f]{4}…)/g, "HEX"],
  [/\d+(\.\d+)? (ms|s|B|[KMG]iB)\b/g, "NUMBER $2"],
  [/\blisten=\S+/g, "listen=ADDRESS"],
  [/ for \S+ and \d+ more names and addresses/g, " for NAMES"],
];

function masked(text: string): string {
  return VARYING.reduce((result, [pattern, mark]) => result.replaceAll(pattern, mark), text);
}

/**
 * Does `output` say what is promised? Times, ids and figures may be others; `…` is any text in a line, and alone in
 * its line any lines.
 */
export function matchesOutput(output: string, expected: string): boolean {
  const escape = (text: string) => text.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const pattern = masked(expected.trim()).split("\n")
    .map((line) =>
      line.trim() === "…" ? "(?:.*\n)*" : line.trimEnd().split("…").map(escape).join(".*") + "\n"
    );
  const trimmed = masked(output.trim()).split("\n").map((line) => line.trimEnd()).join("\n");
  return new RegExp(`^${pattern.join("")}$`).test(trimmed + "\n");
}

/** How a block ended. */
export interface BlockResult {
  readonly code: number;
  /** stdout and stderr as a terminal shows them, with the page's ports and paths. */
  readonly output: string;
}

/** A way to start the server of a machine. */
export interface MachineOptions {
  /** Variables of the server's unit, and of nothing else. */
  readonly serverEnv?: Readonly<Record<string, string>>;
  /** Variables of the operator's shell. */
  readonly env?: Readonly<Record<string, string>>;
}

const PASSWORD = "correct horse battery staple";
const BLOCK_SECONDS_MAX = 180;
/** What pages write as "$TOKEN". */
const TOKEN = 'TOKEN=$(head -n 1 "$MACHINE/data/secrets/auth-token" 2>/dev/null || true)';

/** A machine of an operator: one folder, one server, programs on PATH. */
export class Machine implements AsyncDisposable {
  readonly path: string;
  readonly dataDir: string;
  readonly #folder: TempFolder;
  readonly #env: Record<string, string>;
  readonly #names: readonly (readonly [page: string, here: string])[];

  private constructor(folder: TempFolder, ports: { quic: number; metrics: number }, options: MachineOptions) {
    this.#folder = folder;
    this.path = folder.path;
    this.dataDir = join(folder.path, "data");
    this.#names = [
      ["/var/lib/qpq", this.dataDir],
      ["/etc/qpq", join(folder.path, "etc")],
      ["/mnt/", `${folder.path}/mnt/`],
      [":7000", `:${ports.quic}`],
      [":9090", `:${ports.metrics}`],
    ];
    this.#env = {
      PATH: `${join(folder.path, "bin")}:${Deno.env.get("PATH")}`,
      HOME: Deno.env.get("HOME") ?? folder.path,
      ...(Deno.env.has("DENO_DIR") ? { DENO_DIR: Deno.env.get("DENO_DIR")! } : {}),
      XDG_STATE_HOME: join(folder.path, "state-home"),
      NO_COLOR: "1",
      QPQ_PASSWORD: PASSWORD,
      MACHINE: folder.path,
      ...Object.fromEntries(
        Object.entries(options.env ?? {}).map(([name, value]) => [name, this.#here(value)]),
      ),
    };
  }

  /** Makes the machine; its server does not run yet. */
  static async make(options: MachineOptions = {}): Promise<Machine> {
    const folder = await tempFolder();
    const ports = { quic: freeUdpPort(), metrics: freeTcpPort() };
    const machine = new Machine(folder, ports, options);
    await Deno.mkdir(join(folder.path, "bin"));
    for (const name of ["etc", "mnt/backups", "mnt/keys"]) {
      await Deno.mkdir(join(folder.path, name), { recursive: true });
    }
    for (const [name, text] of Object.entries(SHIMS)) {
      await Deno.writeTextFile(join(folder.path, "bin", name), text, { mode: 0o755 });
    }
    for (const name of ["ops", "README.md"]) await Deno.symlink(join(ROOT, name), join(folder.path, name));
    const unit = {
      QPQ_DATA_DIR: machine.dataDir,
      QPQ_LISTEN: `127.0.0.1:${ports.quic}`,
      QPQ_METRICS_ENABLED: "true",
      QPQ_METRICS_LISTEN: `127.0.0.1:${ports.metrics}`,
      QPQ_OPAQUE_WORKERS: "1",
      ...options.serverEnv,
    };
    const lines = Object.entries(unit).map(([name, value]) => `export ${name}='${machine.#here(value)}'\n`);
    await Deno.writeTextFile(join(folder.path, "unit.env"), lines.join(""));
    return machine;
  }

  /** Runs a block, each command of which has to succeed. */
  async run(code: string): Promise<BlockResult> {
    const script = this.#here(code);
    const { code: status, stdout } = await new Deno.Command("timeout", {
      args: [`${BLOCK_SECONDS_MAX}`, "sh", "-e", "-c", `exec 2>&1\n${TOKEN}\n${script}`],
      cwd: this.path,
      clearEnv: true,
      env: this.#env,
      stdin: "null",
      stderr: "null",
    }).output();
    return { code: status, output: this.#asOnPage(new TextDecoder().decode(stdout)) };
  }

  /** {@link run} for what a test prepares; throws when it fails. */
  async succeed(code: string): Promise<void> {
    const result = await this.run(code);
    if (result.code !== 0) throw new Error(`Preparation failed:\n${code}\n${result.output}`);
  }

  /** Accounts alice and bob, each logged in with the state folder of that name. */
  async addPeople(): Promise<void> {
    for (const user of ["alice", "bob"]) {
      await this.succeed(
        `qpq-client --state ${user} --server 127.0.0.1:7000 --ca "$MACHINE/data/tls/ca.pem" --auth-token "$TOKEN" ` +
          `register ${user}`,
      );
    }
  }

  #here(text: string): string {
    return this.#names.reduce((result, [page, here]) => result.replaceAll(page, here), text);
  }

  #asOnPage(text: string): string {
    return this.#names.reduce((result, [page, here]) => result.replaceAll(here, page), text)
      .replaceAll(this.path, "~");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.run("systemctl kill qpq-server");
    await this.#folder[Symbol.asyncDispose]();
  }
}

const quote = (word: string) => `'${word.replaceAll("'", "'\\''")}'`;
const PROGRAM = [Deno.execPath(), ...DENO_RUN_ARGS].map(quote).join(" ");
const SCRIPT = [Deno.execPath(), ...DENO_RUN_ARGS.slice(0, -1), "--allow-run"].map(quote).join(" ");
const scaling = (name: string) => quote(join(ROOT, "ops", "scaling", name));
const BENCH = quote(join(ROOT, "tests", "bench", "bench.ts"));

/**
 * The programs of a machine. What starts the server waits for the line that says that it listens, or for its end, and
 * prints what a terminal would have shown: stdout and stderr in one pipe, as two would lose the order of their lines.
 * What the log says is in qpq.log as well.
 */
const SHIMS: Readonly<Record<string, string>> = {
  "qpq-server": `#!/bin/sh
case "$1" in ""|serve) exec start-server "$@" ;; esac
exec ${PROGRAM} "$@"
`,
  "qpq-client": `#!/bin/sh
exec ${PROGRAM} client "$@"
`,
  "deno": `#!/bin/sh
test "$1" = task || { echo "no such command on this machine: deno $*"; exit 2; }
task=$2
shift 2
case "$task" in
  start) exec start-server ;;
  qpq) exec qpq-server "$@" ;;
  client) exec ${PROGRAM} client "$@" ;;
  scaling) exec ${SCRIPT} ${scaling("measure.ts")} "$@" ;;
  sizing) exec ${SCRIPT} ${scaling("sizing.ts")} "$@" ;;
  bench) exec ${SCRIPT} ${BENCH} "$@" ;;
esac
echo "no such task on this machine: $task"
exit 2
`,
  "npx": `#!/bin/sh
shift 2
exec deno "$@"
`,
  "start-server": `#!/bin/bash
. "$MACHINE/unit.env"
touch "$MACHINE/qpq.log"
# A first start goes on to say how to try it.
if test -e "$MACHINE/data/tls"; then last=listening; else last=--ping; fi
printed=$(sed -u -e "/$last/q" -e '/^ended with /q' < <(
  exec 2>/dev/null # what lives on must not hold the terminal
  {
    ${PROGRAM} serve --log-format "\${LOG_FORMAT:-json}" </dev/null 2>&1 & pid=$!
    echo $pid > "$MACHINE/server.pid"
    wait $pid
    echo "ended with $?"
  } | tee -p >(exec grep --line-buffered -E '^([{]|error)' >> "$MACHINE/qpq.log")
))
printf '%s\\n' "$printed"
case "$printed" in *"ended with "*) exit 1 ;; esac
`,
  "systemctl": `#!/bin/bash
end() {
  test -f "$MACHINE/server.pid" || return 0
  pid=$(cat "$MACHINE/server.pid")
  kill "-$1" "$pid" 2>/dev/null && tail --pid="$pid" -s 0.1 -f /dev/null
  rm -f "$MACHINE/server.pid"
}
test "$2" = qpq-server || { echo "no such unit on this machine: $*"; exit 5; }
case "$1" in
  start) start-server >/dev/null ;;
  stop) end TERM ;;
  kill) end KILL ;;
  restart) end TERM; start-server >/dev/null ;;
  reload) kill -HUP "$(cat "$MACHINE/server.pid")" ;;
  status|is-active) kill -0 "$(cat "$MACHINE/server.pid")" && echo active ;;
  *) echo "no such verb on this machine: $1"; exit 2 ;;
esac
`,
  "journalctl": `#!/bin/sh
tail -n 50 "$MACHINE/qpq.log"
`,
};
