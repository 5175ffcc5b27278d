/**
 * What others wrote of the program that is shipped, from the lock and the packages themselves:
 * `deno task licences` lists package, version and licence, and fails for a licence that is not in the table below;
 * `deno task sbom` writes a CycloneDX 1.6 bill of materials to dist/sbom.cdx.json. The same sources give the same bytes.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { VERSION } from "../../mod/base/version.ts";

/** Licences that go with AGPL-3.0-only, which this program has, and their SPDX names as packages write them. */
const LICENCES: ReadonlySet<string> = new Set([
  "0BSD",
  "AGPL-3.0-only",
  "Apache-2.0",
  "BSD-2-Clause",
  "BSD-3-Clause",
  "ISC",
  "MIT",
  "(Apache-2.0 AND BSD-3-Clause)",
  // One of the two may be chosen.
  "(BSD-2-Clause OR GPL-2.0-only)",
]);

/** Where the program begins: the workers too, which only `new Worker` names. */
const ENTRIES = [
  "main.ts",
  "mod/store/sqlcipher/worker.ts",
  "mod/auth/opaque_worker.ts",
  "mod/admin/backup_worker.ts",
];

const OUTPUT = "dist/sbom.cdx.json";

/** One package of the program. */
export interface Package {
  readonly name: string;
  readonly version: string;
  /** SPDX, as its package.json says; "" when it says nothing. */
  readonly licence: string;
  /** SHA-512 of its archive, hex, from deno.lock. */
  readonly sha512: string;
  /** `name@version` of what it needs. */
  readonly needs: readonly string[];
}

interface Info {
  readonly modules: readonly { readonly npmPackage?: string }[];
  readonly npmPackages: Readonly<
    Record<string, { name: string; version: string; dependencies: string[]; localPath: string }>
  >;
}

/** Every package that the program is made of, in the order of their names. */
export async function packagesOf(entries: readonly string[] = ENTRIES): Promise<Package[]> {
  const lock = JSON.parse(await Deno.readTextFile("deno.lock")).npm as Record<string, { integrity: string }>;
  const found = new Map<string, Package>();
  for (const entry of entries) {
    const info = JSON.parse(await deno(["info", "--json", "--frozen", entry])) as Info;
    for (const key of reached(info)) {
      const { name, version, dependencies, localPath } = info.npmPackages[key]!;
      const id = `${name}@${version}`;
      // Bindings of other systems are in the lock, and never fetched nor shipped.
      if (name.startsWith("@matrixai/quic-") && !existsSync(localPath)) continue;
      const manifest = JSON.parse(await Deno.readTextFile(join(localPath, "package.json")));
      const integrity = (lock[key] ?? lock[id])?.integrity;
      if (!integrity?.startsWith("sha512-")) throw new Error(`${id} is not locked by a SHA-512`);
      found.set(id, {
        name,
        version,
        licence: typeof manifest.license === "string" ? manifest.license : manifest.license?.type ?? "",
        sha512: Uint8Array.fromBase64(integrity.slice("sha512-".length)).toHex(),
        needs: dependencies.map(plainId).sort(),
      });
    }
  }
  return [...found].sort(([a], [b]) => a < b ? -1 : 1).map(([, one]) => one);
}

/** Keys of the packages that modules import, and of what those need: the lock also holds those of tests. */
function reached({ modules, npmPackages }: Info): Set<string> {
  const keys = new Set<string>();
  const add = (key: string) => {
    if (keys.has(key)) return;
    keys.add(key);
    for (const needed of npmPackages[key]!.dependencies) add(needed);
  };
  for (const { npmPackage } of modules) if (npmPackage) add(npmPackage);
  return keys;
}

/** Without the versions of peers that Deno appends: `name@version_peer@version`. */
function plainId(key: string): string {
  return key.replace(/^(@?[^@]+@[^_]+).*/, "$1");
}

async function deno(args: string[]): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args, env: { NO_COLOR: "1" } })
    .output();
  if (code !== 0) throw new Error(new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}

/** The packages whose licence is not known to go with ours. */
export function strangeLicences(packages: readonly Package[]): Package[] {
  return packages.filter(({ licence }) => !LICENCES.has(licence));
}

const urlOf = ({ name, version }: Pick<Package, "name" | "version">) =>
  `pkg:npm/${name.replace(/^@/, "%40")}@${version}`;

/** CycloneDX 1.6 as JSON. */
export function billOfMaterials(packages: readonly Package[]): Record<string, unknown> {
  const application = "qpq-server";
  const byId = new Map(packages.map((one) => [`${one.name}@${one.version}`, one]));
  const needed = new Set(packages.flatMap(({ needs }) => needs));
  const direct = [...byId].filter(([id]) => !needed.has(id)).map(([, one]) => urlOf(one));
  return {
    bomFormat: "CycloneDX",
    specVersion: "1.6",
    version: 1,
    metadata: {
      component: {
        type: "application",
        "bom-ref": application,
        name: application,
        version: VERSION,
        licenses: [{ license: { id: "AGPL-3.0-only" } }],
      },
    },
    components: packages.map((one) => ({
      type: "library",
      "bom-ref": urlOf(one),
      name: one.name,
      version: one.version,
      purl: urlOf(one),
      hashes: [{ alg: "SHA-512", content: one.sha512 }],
      licenses: /[ ()]/.test(one.licence)
        ? [{ expression: one.licence }]
        : [{ license: { id: one.licence } }],
    })),
    dependencies: [
      { ref: application, dependsOn: direct },
      ...packages.map((one) => ({
        ref: urlOf(one),
        dependsOn: one.needs.flatMap((id) => byId.has(id) ? [urlOf(byId.get(id)!)] : []),
      })),
    ],
  };
}

async function main([what]: string[]): Promise<number> {
  const packages = await packagesOf();
  if (what === "licences") {
    for (const { name, version, licence } of packages) {
      console.log(`${licence.padEnd(30)} ${name} ${version}`);
    }
    const strange = strangeLicences(packages);
    for (const { name, licence } of strange) {
      console.error(`error: ${name} has the licence ${JSON.stringify(licence)}`);
    }
    return strange.length > 0 ? 1 : 0;
  }
  await Deno.mkdir("dist", { recursive: true });
  await Deno.writeTextFile(OUTPUT, JSON.stringify(billOfMaterials(packages), null, 2) + "\n");
  console.log(`${packages.length} packages in ${OUTPUT}`);
  return 0;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
