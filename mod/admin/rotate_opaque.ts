/**
 * `rotate opaque`: a new server setup. New accounts get it, the others move to it at their next login, unnoticed; an
 * old setup is retired when nobody needs it any more. The OPRF seed is kept unless a leak asks for a new one: with the
 * same seed nobody can see by the server's answers which accounts have moved. Each suite has its own setups.
 */
import { OpaquePool } from "../auth/opaque.ts";
import { type Bytes, concat } from "../base/bytes.ts";
import { OPAQUE_SUITE_NAMES, oprfSeedBytes, SUITE_P256, SUITE_RISTRETTO255 } from "../base/opaque_suite.ts";
import type { OpaqueSetup, Store } from "../store/store.ts";
import { type AdminContext, AdminError, type JsonObject, type Operation } from "./operations.ts";
import { InputReader } from "./operations_input.ts";
import { finishRotation } from "./rotate_history.ts";
import { rotationAnswer } from "./rotate_plan.ts";
import { allAccounts } from "./users_find.ts";

/** Names of locked-out accounts that are told. */
const NAMES_MAX = 10_000;
/** Names in a message for people. */
const NAMES_SHOWN = 20;
const SETUP_ID_MAX = 2 ** 31 - 1;

const SUITE_IDS = new Map([...OPAQUE_SUITE_NAMES].map(([id, name]): [string, number] => [name, id]));

/** A new setup, or the end of an old one. */
export const rotateOpaque: Operation = {
  name: "rotate opaque",
  whenStopped: "changes",
  audited: true,
  alone: "rotation",
  async run(context, input) {
    const read = new InputReader(input);
    const dryRun = read.flag("dryRun");
    const newSeed = read.flag("newSeed");
    const force = read.flag("force");
    const suite = read.text("suite") ?? "ristretto255";
    const setupId = read.number("retire", { min: 0, max: SETUP_ID_MAX, otherwise: 0 });
    read.end();
    if (setupId > 0 && newSeed) throw new AdminError("A new seed and retiring a setup are two commands");
    const suiteId = SUITE_IDS.get(suite);
    if (suiteId === undefined) {
      throw new AdminError(`--suite is one of ${[...SUITE_IDS.keys()].join(", ")}: ${suite}`);
    }
    if (setupId === 0 && force) throw new AdminError("--force belongs to --retire");
    return setupId > 0
      ? await retire(context, { setupId, force, dryRun })
      : await add(context, { suiteId, newSeed, dryRun });
  },
};

async function add(
  context: AdminContext,
  { suiteId, newSeed, dryRun }: { suiteId: number; newSeed: boolean; dryRun: boolean },
): Promise<JsonObject> {
  if (isSuiteOff(context, suiteId)) {
    throw new AdminError("A new setup of p256 would be of no use: opaque_suites has no p256");
  }
  const store = await context.store();
  const newest = newestOf(await store.opaqueSetups(), suiteId);
  if (!newest) {
    const name = OPAQUE_SUITE_NAMES.get(suiteId);
    throw new AdminError(`There is no OPAQUE setup of ${name} yet: the first start with that suite makes it`);
  }
  const accounts = await accountsOfSuite(store, suiteId);
  const base = {
    key: "opaque",
    dryRun,
    changes: true,
    steps: [
      `a new server setup${newSeed ? " with a new OPRF seed" : ", which keeps the OPRF seed"}`,
      `new accounts use it; ${accounts} ${
        accounts === 1 ? "account moves" : "accounts move"
      } at the next login`,
    ],
    notes: notesOfAdding(newest, newSeed),
  } as const;
  if (dryRun) return rotationAnswer({ ...base, version: null, more: { setups: await setupRows(store) } });
  const fresh = await freshSetup(suiteId);
  const seedBytes = oprfSeedBytes(suiteId);
  const secret = newSeed ? fresh : concat(newest.secret.subarray(0, seedBytes), fresh.subarray(seedBytes));
  const now = context.clock.now();
  const { setupId } = await store.addOpaqueSetup({ suiteId, secret, createdAt: now });
  await context.step("added the setup");
  await context.server?.accounts.refreshOpaqueSetups();
  const how = `setup ${setupId}${newSeed ? " with a new seed" : ""}`;
  const version = await finishRotation(context, "opaque", how);
  await context.step("wrote the history");
  return rotationAnswer({ ...base, version, more: { setupId, setups: await setupRows(store) } });
}

function notesOfAdding({ setupId }: OpaqueSetup, newSeed: boolean): string[] {
  return [
    "Passwords, sessions and connections stay as they are",
    `When no account is left under setup ${setupId} (qpq_opaque_accounts, rotate status): ` +
    `qpq-server rotate opaque --retire ${setupId}`,
    ...(newSeed
      ? [
        "Unknown names are answered under the oldest setup until it is retired: an answer that changes before that " +
        "shows that the account exists and has logged in or registered since, one that changes at the retirement " +
        "that there is none",
      ]
      : ["After a leak of the setup use --new-seed: with the old seed passwords can be guessed offline"]),
  ];
}

async function freshSetup(suiteId: number): Promise<Bytes> {
  await using pool = await OpaquePool.open({ workers: 1, pendingMax: 1, suites: [suiteId] });
  return await pool.createSetup(suiteId);
}

function newestOf(setups: readonly OpaqueSetup[], suiteId: number): OpaqueSetup | undefined {
  return setups.findLast((setup) => setup.suiteId === suiteId && setup.retiredAt === null);
}

async function accountsOfSuite(store: Store, suiteId: number): Promise<number> {
  const ids = (await store.opaqueSetups()).filter((setup) => setup.suiteId === suiteId).map((each) =>
    each.setupId
  );
  const all = await store.accountsBySetup();
  return all.filter(({ setupId }) => ids.includes(setupId)).reduce((sum, { accounts }) => sum + accounts, 0);
}

/** Is p256 on its end: no start will use its setups any more? */
function isSuiteOff({ settings }: AdminContext, suiteId: number): boolean {
  return suiteId === SUITE_P256 && !settings.opaqueSuites.includes("p256");
}

/** The newest setup of all stays, as does the newest of a suite that is on. */
function isNeeded(context: AdminContext, setup: OpaqueSetup, setups: readonly OpaqueSetup[]): boolean {
  if (setup === setups.at(-1)) return true;
  return setup === newestOf(setups, setup.suiteId) && !isSuiteOff(context, setup.suiteId);
}

async function retire(
  context: AdminContext,
  { setupId, force, dryRun }: { setupId: number; force: boolean; dryRun: boolean },
): Promise<JsonObject> {
  const store = await context.store();
  const setups = await store.opaqueSetups();
  const setup = setups.find((each) => each.setupId === setupId);
  if (!setup) throw new AdminError(`There is no OPAQUE setup ${setupId}: ${knownSetups(setups)}`);
  if (isNeeded(context, setup, setups)) {
    const inItsSuite = setup.suiteId !== SUITE_RISTRETTO255 && !isSuiteOff(context, setup.suiteId);
    const other = inItsSuite ? " --suite p256" : "";
    throw new AdminError(
      `Setup ${setupId} is the newest, which accounts use: make another with \`qpq-server rotate opaque${other}\` first`,
    );
  }
  if (setup.retiredAt !== null) {
    const notes = [`Setup ${setupId} was retired on ${new Date(setup.retiredAt).toISOString()}`];
    return rotationAnswer({ key: "opaque", dryRun, changes: false, version: null, steps: [], notes });
  }
  const accounts = (await store.accountsBySetup()).find((each) => each.setupId === setupId)?.accounts ?? 0;
  if (accounts > 0 && !force) throw lockOut(setupId, accounts, await namesUnder(store, setupId));
  const steps = [
    `setup ${setupId} is retired: its ${accounts} ${
      accounts === 1 ? "record logs" : "records log"
    } nobody in any more`,
  ];
  const base = { key: "opaque", dryRun, changes: true, steps } as const;
  if (dryRun) {
    const lockedOut = await namesUnder(store, setupId);
    return rotationAnswer({
      ...base,
      version: null,
      notes: notesOfRetiring(lockedOut),
      more: { lockedOut, lockedOutCount: accounts },
    });
  }
  const now = context.clock.now();
  const result = await store.retireOpaqueSetup({ setupId, force, namesMax: NAMES_MAX, now });
  if (result.status === "inUse") throw lockOut(setupId, result.accounts, result.names);
  if (result.status !== "retired") {
    throw new AdminError(`Setup ${setupId} cannot be retired: it is ${result.status}`);
  }
  await context.step("retired the setup");
  await context.server?.accounts.refreshOpaqueSetups();
  const version = await finishRotation(
    context,
    "opaque",
    `retired setup ${setupId}, ${result.lockedOut} locked out`,
  );
  await context.step("wrote the history");
  const more = { lockedOut: result.names, lockedOutCount: result.lockedOut };
  return rotationAnswer({ ...base, version, notes: notesOfRetiring(result.names), more });
}

function lockOut(setupId: number, accounts: number, names: readonly string[]): AdminError {
  return new AdminError(
    `Retiring setup ${setupId} would lock out ${accounts} ${accounts === 1 ? "account" : "accounts"} that ` +
      `${accounts === 1 ? "has" : "have"} not logged in since: ${
        shown(names)
      }. Wait until they have, or use --force ` +
      `and then \`qpq-server user reset NAME\` for each; nothing was changed`,
  );
}

function notesOfRetiring(names: readonly string[]): string[] {
  if (names.length === 0) return ["Nobody is locked out"];
  return [
    `Locked out: ${shown(names)} (--json has all names)`,
    "`qpq-server user reset NAME` gives each an invitation to register the same account again",
    "Their sessions go on until they end; only logging in with the password does not work",
  ];
}

function shown(names: readonly string[]): string {
  const more = names.length - NAMES_SHOWN;
  return names.slice(0, NAMES_SHOWN).join(", ") + (more > 0 ? ` and ${more} more` : "");
}

async function namesUnder(store: Store, setupId: number): Promise<string[]> {
  const names: string[] = [];
  for await (const account of allAccounts(store)) {
    if (account.setupId === setupId) names.push(account.userName);
    if (names.length === NAMES_MAX) break;
  }
  return names;
}

function knownSetups(setups: readonly OpaqueSetup[]): string {
  return setups.length === 0
    ? "there is none"
    : `there are ${setups.map(({ setupId }) => setupId).join(", ")}`;
}

/** Every setup with its accounts, oldest first. No secret. */
export async function setupRows(store: Store): Promise<JsonObject[]> {
  const accounts = new Map((await store.accountsBySetup()).map((each) => [each.setupId, each.accounts]));
  return (await store.opaqueSetups()).map(({ setupId, suiteId, createdAt, retiredAt }) => ({
    setupId,
    suite: OPAQUE_SUITE_NAMES.get(suiteId) ?? String(suiteId),
    accounts: accounts.get(setupId) ?? 0,
    createdAt,
    retiredAt,
  }));
}
