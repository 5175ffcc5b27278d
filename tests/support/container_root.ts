/**
 * The runtime layout of the container, without a container: a root folder with deno, the libraries it is linked to,
 * the sources and the packages they use, and nothing else; no shell. Entered read-only as uid 65532 in a mount
 * namespace of its own, with /data and /tmp to write to. Needs root and Linux.
 */
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";

const HERE = new URL("../../", import.meta.url).pathname;
/** The user of distroless images. */
const UID = 65532;
const PERMISSIONS = ["net", "read", "write", "env", "ffi", "sys"].map((name) => `--allow-${name}`);
const WORKERS = [
  "mod/store/sqlcipher/worker.ts",
  "mod/auth/opaque_worker.ts",
  "mod/admin/backup_worker.ts",
];

/** Such a root, removed at the end of its scope. */
export class ContainerRoot implements AsyncDisposable {
  private constructor(readonly folder: string) {}

  /** Builds one. */
  static async build(): Promise<ContainerRoot> {
    const folder = await Deno.makeTempDir({ prefix: "qpq-container-" });
    await Deno.chmod(folder, 0o755);
    const root = new ContainerRoot(folder);
    for (const name of ["bin", "app", "deno", "data", "tmp", "proc"]) await Deno.mkdir(join(folder, name));
    await root.#copyDeno();
    for (const name of ["main.ts", "deno.json", "deno.lock", "package.json", "mod"]) {
      await copy(join(HERE, name), join(folder, "app", name));
    }
    await root.#copyPackages();
    await Deno.chown(join(folder, "data"), UID, UID);
    await Deno.chmod(join(folder, "data"), 0o700);
    return root;
  }

  /** Runs the program in it. */
  run(args: readonly string[], env: Readonly<Record<string, string>> = {}): Deno.Command {
    const script = [
      "set -e",
      'mount --bind "$ROOT" "$ROOT"',
      'mount -t tmpfs -o size=64m,mode=1777,nosuid,nodev tmpfs "$ROOT/tmp"',
      'mount --bind "$DATA" "$ROOT/data"',
      'mount --bind /proc "$ROOT/proc"',
      'mount -o remount,bind,ro "$ROOT"', // what is mounted on it stays writable
      `exec chroot --userspec=${UID}:${UID} "$ROOT" /bin/deno "$@"`,
    ].join("\n");
    const program = [
      "run",
      "--quiet",
      "--cached-only",
      "--frozen",
      "--no-check",
      ...PERMISSIONS,
      "/app/main.ts",
    ];
    return new Deno.Command("unshare", {
      args: ["--mount", "--propagation", "private", "sh", "-c", script, "sh", ...program, ...args],
      clearEnv: true,
      env: {
        PATH: "/usr/sbin:/usr/bin:/sbin:/bin",
        ROOT: this.folder,
        DATA: join(this.folder, "data"),
        DENO_DIR: "/deno",
        QPQ_DATA_DIR: "/data",
        ...env,
      },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.folder, { recursive: true });
  }

  async #copyDeno(): Promise<void> {
    await copy(await Deno.realPath(Deno.execPath()), join(this.folder, "bin", "deno"));
    const linked = await output("ldd", [Deno.execPath()]);
    for (const [path] of linked.matchAll(/\/\S+\.so\S*/g)) {
      await Deno.mkdir(join(this.folder, dirname(path)), { recursive: true });
      await copy(await Deno.realPath(path), join(this.folder, path));
    }
    // The SQLCipher binding is C++.
    for (const library of ["libstdc++.so.6", "libgcc_s.so.1", "libm.so.6"]) {
      const found = (await output("ldconfig", ["-p"])).split("\n").find((line) =>
        line.includes(`${library} (libc6,x86-64`) || line.includes(`${library} (libc6,AArch64`)
      );
      const path = found?.split("=> ")[1];
      if (!path) throw new Error(`This machine has no ${library}`);
      await Deno.mkdir(join(this.folder, dirname(path)), { recursive: true });
      await copy(await Deno.realPath(path), join(this.folder, path));
    }
  }

  /** The packages that the program uses, from Deno's cache. */
  async #copyPackages(): Promise<void> {
    const { npmCache } = JSON.parse(await output(Deno.execPath(), ["info", "--json"]));
    const wanted = new Map<string, { name: string; version: string }>();
    for (const entry of ["main.ts", ...WORKERS]) {
      const graph = JSON.parse(
        await output(Deno.execPath(), ["info", "--json", "--frozen", join(HERE, entry)]),
      );
      for (const { name, version } of Object.values<{ name: string; version: string }>(graph.npmPackages)) {
        wanted.set(`${name}@${version}`, { name, version });
      }
    }
    for (const registry of Deno.readDirSync(npmCache)) {
      for (const { name, version } of wanted.values()) {
        const from = join(npmCache, registry.name, name, version);
        // Bindings of other systems are in the lock, and never fetched.
        if (name.startsWith("@matrixai/quic-") && !existsSync(from)) continue;
        const to = join(this.folder, "deno", "npm", registry.name, name, version);
        await Deno.mkdir(dirname(to), { recursive: true });
        await copy(from, to);
      }
    }
  }
}

async function copy(from: string, to: string): Promise<void> {
  await output("cp", ["-a", from, to]);
}

async function output(program: string, args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(program, { args: [...args], cwd: HERE }).output();
  if (code !== 0) throw new Error(`${program} ended with ${code}: ${new TextDecoder().decode(stderr)}`);
  return new TextDecoder().decode(stdout);
}
