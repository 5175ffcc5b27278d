/** `rotate status`: of each key its version, its age, where it comes from, and what is pending. */
import { exists } from "../base/files.ts";
import type { Secret } from "../config/options.ts";
import { fingerprintText } from "../transport/fingerprint.ts";
import { inspectCertificate } from "../transport/tls.ts";
import { type AdminContext, type JsonObject, type Operation, orAdminError } from "./operations.ts";
import { acceptedTokens } from "./rotate_auth_token.ts";
import { describeFederation } from "./rotate_federation.ts";
import {
  lastRotation,
  readRotations,
  ROTATED_KEYS,
  type RotatedKey,
  type Rotations,
  versionOf,
} from "./rotate_history.ts";
import { setupRows } from "./rotate_opaque.ts";
import { managedPaths, readPair } from "./rotate_tls_files.ts";
import { servesAt } from "./rotate_tls_plan.ts";

/** Shows all keys. */
export const rotateStatus: Operation = {
  name: "rotate status",
  whenStopped: "reads",
  audited: false,
  async run(context) {
    const rotations = await readRotations(context.settings.dataDir);
    const now = context.clock.now();
    const keys: Record<string, JsonObject> = {};
    for (const key of ROTATED_KEYS) {
      const last = lastRotation(rotations, key);
      const facts = await orAdminError(
        `Cannot tell the state of ${key}`,
        () => FACTS[key](context, rotations),
      );
      keys[key] = {
        version: versionOf(rotations, key),
        rotatedAt: last?.at ?? null,
        ageMs: last ? now - last.at : null,
        ...(last ? { how: last.how } : {}),
        ...facts,
      };
    }
    return { keys };
  },
};

type Facts = (context: AdminContext, rotations: Rotations) => Promise<JsonObject>;

const FACTS: Record<RotatedKey, Facts> = {
  "auth-token": authToken,
  tls,
  federation: async ({ settings }) =>
    await describeFederation(settings.dataDir) ?? { pending: "none was set up" },
  "db-key": dbKey,
  opaque,
};

async function authToken({ settings, clock }: AdminContext): Promise<JsonObject> {
  const tokens = await acceptedTokens(settings);
  const others = tokens.slice(1).filter(({ until }) => until === null || until > clock.now());
  const pending = others.map(({ until }) =>
    until === null
      ? "an older token is accepted without an end"
      : `an older token is accepted until ${iso(until)}`
  );
  return {
    source: sourceOf(settings.authToken, settings.allowNoAuthToken),
    accepted: tokens.length && 1 + others.length,
    pending,
  };
}

async function tls({ settings, server }: AdminContext): Promise<JsonObject> {
  const { tlsCert, tlsKey, dataDir } = settings;
  const files = tlsCert !== null && tlsKey !== null ? { certificate: tlsCert, key: tlsKey } : null;
  const paths = files ?? managedPaths(dataDir, "server");
  if (!await exists(paths.certificate)) return { pending: "none was made yet" };
  const info = server?.certificates.info ?? inspectCertificate((await readPair(paths)).certificatePem);
  const next = files ? null : await readPair(managedPaths(dataDir, "next")).then(
    ({ certificatePem }) => inspectCertificate(certificatePem),
    () => null,
  );
  return {
    source: files ? paths.certificate : "managed",
    fingerprint: fingerprintText(info.leafSha256),
    madeAt: info.notBefore,
    expiresAt: info.notAfter,
    pending: next
      ? [`${fingerprintText(next.leafSha256)} is announced and serves from ${iso(servesAt(next, info))}`]
      : [],
  };
}

/** Opening the store of a stopped server would bring an older schema up to date. */
const NOT_OPENED = "only the running server tells: the database was not opened";

async function dbKey({ settings, server }: AdminContext): Promise<JsonObject> {
  const source = sourceOf(settings.dbKey, settings.allowPlaintextStore);
  const first = settings.dbKey?.lines[0];
  if (first === undefined) return { source };
  if (!server) return { source, pending: [NOT_OPENED] };
  if (server.storeKey.current === first) return { source, pending: [] };
  return { source, pending: ["the database is still under a later line: `qpq-server rotate db-key`"] };
}

async function opaque({ server, store }: AdminContext): Promise<JsonObject> {
  if (!server) return { source: "database", pending: [NOT_OPENED] };
  const setups = (await setupRows(await store())).filter(({ retiredAt }) => retiredAt === null);
  const newest = (suite: unknown) => setups.findLast((row) => row["suite"] === suite)?.["setupId"] ?? null;
  return {
    source: "database",
    setup: newest("ristretto255"),
    ...(newest("p256") === null ? {} : { p256Setup: newest("p256") }),
    pending: setups.flatMap(({ setupId, suite, accounts }) => {
      if (setupId === newest(suite)) {
        return suite === "ristretto255" || accounts === 0 ? [] : [
          `${accounts} accounts of the suite ${suite} (setup ${setupId}) move to ristretto255 at their next login`,
        ];
      }
      return accounts === 0
        ? [`no account is left under setup ${setupId}: \`qpq-server rotate opaque --retire ${setupId}\``]
        : [`${accounts} accounts under setup ${setupId} move at their next login`];
    }),
  };
}

function sourceOf(secret: Secret | null, allowed: boolean): string {
  if (!secret) return allowed ? "none, as the configuration allows" : "none was made yet";
  return secret.path ?? secret.from;
}

function iso(at: number): string {
  return new Date(at).toISOString();
}
