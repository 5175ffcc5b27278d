/**
 * kill -9 under mixed load, alone and during backups, rotations and blob uploads: what was acknowledged is there
 * after the restart, in order, once; no KeyPackage is handed out twice. `deno task crash` goes on for longer.
 */
import { DATA_PATHS, type StoreBackend } from "../../mod/store/open.ts";
import { runCrashes } from "../support/crash_rounds.ts";

const KILLS = 25;

for (const backend of Object.keys(DATA_PATHS) as StoreBackend[]) {
  Deno.test(`kill -9 at ${KILLS} random moments breaks no promise (${backend})`, async () => {
    await runCrashes({ backend, kills: KILLS, seed: crypto.getRandomValues(new Uint32Array(1))[0]! });
  });
}
