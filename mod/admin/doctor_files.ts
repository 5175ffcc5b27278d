/** Who may read what: the data folder, secrets, private keys, and files that the server's user cannot read. */
import { join } from "node:path";
import { managedSecretPath } from "../config/load.ts";
import { isCredential, isOpenToOthers } from "../config/secret_mode.ts";
import { oldKeysPath } from "./rotate_db_key_file.ts";
import { type DoctorCheck, type DoctorContext, fail, ok, warn } from "./doctor_check.ts";

/** A path that only the server's user may enter or read. */
interface Guarded {
  readonly path: string;
  readonly mode: number;
  /** Weak bits are a leak, not only a bad habit. */
  readonly secret: boolean;
}

/** Modes and owners. */
export async function filesGroup(context: DoctorContext): Promise<DoctorCheck[]> {
  const { dataDir } = context.settings;
  const folder = await statIfThere(dataDir);
  if (!folder) {
    return [
      warn(
        "data folder",
        `${dataDir} does not exist yet`,
        "The first start makes it, or `qpq-server init`; or set data_dir (QPQ_DATA_DIR)",
      ),
    ];
  }
  if (!folder.isDirectory) {
    return [fail("data folder", `${dataDir} is not a folder`, "Set data_dir (QPQ_DATA_DIR) to a folder")];
  }
  if (Deno.build.os === "windows") return [ok("data folder", `${dataDir}; modes are not checked on Windows`)];
  const guarded = await guardedPaths(context);
  return [modesCheck(context, guarded), ownersCheck(guarded, folder.uid), writableCheck(dataDir, folder)];
}

function modesCheck({ settings }: DoctorContext, guarded: readonly (Guarded & Deno.FileInfo)[]): DoctorCheck {
  const weak = guarded.filter(({ path, mode }) => isOpenToOthers(path, mode ?? 0));
  if (weak.length === 0) {
    return ok("permissions", `${guarded.length} folders, secrets and keys are the server's alone`);
  }
  const found = `others have access to ${
    weak.map(({ path, mode }) => `${path} (${octal(mode)})`).join(", ")
  }`;
  const fix = weak.map(({ path, isDirectory }) => `chmod ${isDirectory ? "700" : "600"} ${path}`).join("; ");
  if (!weak.some(({ secret }) => secret)) return warn("permissions", found, fix);
  const remedy = `${fix}; who could read a secret may have: rotate it (\`qpq-server rotate\`)`;
  return settings.production ? fail("permissions", found, remedy) : warn("permissions", found, remedy);
}

/** A command that root ran on a stopped server must not have left files that the server cannot read. */
function ownersCheck(guarded: readonly (Guarded & Deno.FileInfo)[], owner: number | null): DoctorCheck {
  const foreign = guarded.filter(({ path, uid }) => uid !== owner && uid !== null && !isCredential(path));
  if (foreign.length === 0) return ok("owners", `everything belongs to user ${owner}`);
  return fail(
    "owners",
    `the data folder belongs to user ${owner}, but not ${foreign.map(({ path }) => path).join(", ")}`,
    `chown --recursive ${owner} the paths, so that the server can read them`,
  );
}

function writableCheck(dataDir: string, { uid, mode }: Deno.FileInfo): DoctorCheck {
  const own = Deno.uid();
  const name = "data folder";
  if (own !== 0 && uid !== own) {
    return warn(
      name,
      `${dataDir} belongs to user ${uid}, and you are user ${own}`,
      "Run doctor as the server's user or as root: some checks see more then",
    );
  }
  if (((mode ?? 0) & 0o300) === 0o300) return ok(name, dataDir);
  return fail(name, `${dataDir} cannot be written by its owner (${octal(mode)})`, `chmod 700 ${dataDir}`);
}

async function guardedPaths({ settings }: DoctorContext): Promise<(Guarded & Deno.FileInfo)[]> {
  const { dataDir, authToken, dbKey, tlsKey } = settings;
  const secret = (path: string) => ({ path, mode: 0o600, secret: true });
  const wanted: Guarded[] = [
    { path: dataDir, mode: 0o700, secret: false },
    ...["secrets", "tls", "blobs", "backups"].map((name) => ({
      path: join(dataDir, name),
      mode: 0o700,
      secret: false,
    })),
    { path: join(dataDir, "audit.log"), mode: 0o600, secret: false },
    { path: join(dataDir, "qpq.db"), mode: 0o600, secret: false },
    secret(managedSecretPath(dataDir, "auth_token")),
    secret(managedSecretPath(dataDir, "db_key")),
    secret(oldKeysPath(dataDir)),
    ...["ca.key", "server.key", "next.key"].map((name) => secret(join(dataDir, "tls", name))),
    ...[authToken?.path, dbKey?.path, tlsKey].filter((path) => path !== null && path !== undefined).map(
      secret,
    ),
  ];
  const found: (Guarded & Deno.FileInfo)[] = [];
  for (const each of new Map(wanted.map((each) => [each.path, each])).values()) {
    const info = await statIfThere(each.path);
    if (info) found.push({ ...info, path: each.path, secret: each.secret, mode: info.mode ?? each.mode });
  }
  return found;
}

async function statIfThere(path: string): Promise<Deno.FileInfo | null> {
  try {
    return await Deno.stat(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return null;
    throw error;
  }
}

function octal(mode: number | null): string {
  return ((mode ?? 0) & 0o777).toString(8).padStart(4, "0");
}
