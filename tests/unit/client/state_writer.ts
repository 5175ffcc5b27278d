/** Writes transactions for state_crash_test.ts until it is killed, and reports each number once it is saved. */
import { ClientState } from "../../../mod/client/state.ts";

const state = await ClientState.open({ folder: Deno.args[0]! });
let number = Number(state.get("settings", "a") ?? 0);
const filler = crypto.getRandomValues(new Uint8Array(30_000)).toBase64();
while (true) {
  number++;
  await state.transaction((tx) => {
    tx.put("settings", "a", String(number));
    tx.put("settings", "filler", number + filler);
    tx.put("settings", "b", String(number));
  });
  await Deno.stdout.write(new TextEncoder().encode(`${number}\n`));
}
