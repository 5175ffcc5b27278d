/** Small file systems in memory, for full and read-only disks. Mounting needs root: see {@link canMount}. */

/** A mounted file system; unmounted at the end of its scope. */
export interface Tmpfs extends AsyncDisposable {
  /** Changes mount options, such as `ro` or `size=32m`. */
  remount(options: string): Promise<void>;
}

async function run(program: string, args: readonly string[]): Promise<boolean> {
  try {
    return (await new Deno.Command(program, { args: [...args], stderr: "null" }).output()).success;
  } catch {
    return false;
  }
}

/** May this process mount? */
export async function canMount(): Promise<boolean> {
  if (Deno.build.os !== "linux" || Deno.uid() !== 0) return false;
  const folder = await Deno.makeTempDir({ prefix: "qpq-test-" });
  const mounted = await run("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]);
  if (mounted) await run("umount", [folder]);
  await Deno.remove(folder);
  return mounted;
}

/** Mounts a file system of `size` (as mount writes it) over an empty folder. */
export async function mountTmpfs(folder: string, size: string): Promise<Tmpfs> {
  const mount = async (args: readonly string[]) => {
    if (!await run("mount", [...args, folder])) throw new Error(`mount ${args.join(" ")} ${folder} failed`);
  };
  await mount(["-t", "tmpfs", "-o", `size=${size}`, "tmpfs"]);
  return {
    remount: (options) => mount(["-o", `remount,${options}`]),
    async [Symbol.asyncDispose]() {
      await run("umount", [folder]);
    },
  };
}
