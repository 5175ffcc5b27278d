/** A process that is killed while it writes: what it reported as saved is there, and no transaction is half there. */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { ClientState } from "../../../mod/client/state.ts";

const WRITER = fileURLToPath(new URL("./state_writer.ts", import.meta.url));

/** Runs the writer until it has reported `count` numbers, kills it, and returns the last number it reported. */
async function writeAndKill(folder: string, count: number): Promise<number> {
  const args = ["run", "-A", "--no-check", WRITER, folder];
  const child = new Deno.Command(Deno.execPath(), { args, stdout: "piped", stderr: "inherit" }).spawn();
  const numbers: number[] = [];
  let killed = false;
  let text = "";
  for await (const chunk of child.stdout.pipeThrough(new TextDecoderStream())) {
    const lines = (text + chunk).split("\n");
    text = lines.pop()!;
    numbers.push(...lines.map(Number));
    if (killed || numbers.length < count) continue;
    child.kill("SIGKILL");
    killed = true;
  }
  const { signal } = await child.status;
  assert.equal(signal, "SIGKILL");
  return numbers.at(-1)!;
}

Deno.test("a state whose process is killed has everything that was reported as saved", async () => {
  const folder = await Deno.makeTempDir({ prefix: "qpq-state-" });
  try {
    // 30 kB each: the later rounds pass a rewrite of the journal, which begins at 1 MiB.
    for (const count of [1, 7, 40, 25]) {
      const last = await writeAndKill(folder, count);
      await using state = await ClientState.open({ folder });
      const saved = Number(state.get("settings", "a"));
      assert(saved >= last, `${last} was reported, ${saved} is there`);
      assert.equal(state.get("settings", "b"), String(saved));
      assert(state.get("settings", "filler")?.startsWith(String(saved)));
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
