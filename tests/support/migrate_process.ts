/**
 * Opens a store of an older version, and kills itself in a given turn of its event loop. Ends with 0, and the number
 * of turns that it took on stdout, when the store is open before. Arguments: data folder, key, turn.
 */
import { setImmediate } from "node:timers";
import { openStore } from "../../mod/store/open.ts";

const [dataDir, key, last] = Deno.args as [string, string, string];
let turns = 0;
const turn = () => {
  if (++turns === Number(last)) Deno.kill(Deno.pid, "SIGKILL");
  setImmediate(turn);
};
turn();
await openStore({ backend: "sqlcipher", dataDir, keys: [key], mustExist: true });
console.log(turns);
Deno.exit(0);
