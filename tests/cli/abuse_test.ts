/** `deno task abuse`: the machinery with one attack; `--quick` makes all of them. */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";

const SCRIPT = fileURLToPath(new URL("../bench/abuse.ts", import.meta.url));

Deno.test("abuse --quick attacks a server process and finds the limit that held it", async () => {
  const args = ["run", "--quiet", "--cached-only", "--no-check", "--allow-all", SCRIPT, "--quick", "--json"];
  const command = new Deno.Command(Deno.execPath(), { args: [...args, "--only", "registrations"] });
  const { code, stdout, stderr } = await command.output();
  const text = new TextDecoder();
  assert.deepEqual([code, text.decode(stderr)], [0, ""]);
  const outcome = JSON.parse(text.decode(stdout));
  assert.ok(outcome.hits.registrationRate > 0 && outcome.tally.withRetryAfter > 0, "it was refused by name");
  assert.ok(outcome.during.honest.trips > 0, "the honest went on");
  assert.deepEqual([outcome.unhandledRejections, outcome.internalErrors, outcome.heldBytes], [0, 0, 0]);
});
