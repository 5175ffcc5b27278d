/** The server's command words: each loads its own command. */
import assert from "node:assert/strict";
import { runCommandLine } from "../../../mod/cli/main.ts";
import { FakeTerminal } from "../../support/fake_terminal.ts";

async function run(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const terminal = new FakeTerminal();
  const code = await runCommandLine("qpq-server", { args, terminal });
  return { code, out: terminal.printed, err: terminal.said };
}

Deno.test("every command that the help lists is there when its word comes first", async () => {
  const { code, out } = await run("--help");
  assert.equal(code, 0);
  const names = [...out.split("Commands:\n")[1]!.matchAll(/^ {2}([a-z-]+)/gm)].map(([, name]) => name!);
  assert.ok(names.length >= 20, `${names}`);
  for (const name of names.filter((each) => each !== "help")) {
    const help = await run(name, "--help");
    assert.equal(help.code, 0, help.err);
    const usage = name === "client" ? /^Usage: qpq-client / : new RegExp(`^Usage: qpq-server ${name}\\b`);
    assert.match(help.out, usage);
    assert.equal((await run("help", name)).out, help.out);
  }
});

Deno.test("flags without a word are the default command's, but for those about the program", async () => {
  const { code, err } = await run("--nonsense");
  assert.equal(code, 2);
  assert.match(err, /unknown option '--nonsense'/);
  assert.match((await run("--data-dir", "x", "--help")).out, /Commands:\n/);
  assert.match((await run("--version")).out, /^\d+\.\d+\.\d+\n$/);
});

Deno.test("an unknown word is told with the nearest of all", async () => {
  for (const [word, nearest] of [["bakcup", "backup"], ["restord", "restored"], ["hepl", "help"]]) {
    const { code, err } = await run(word!);
    assert.equal(code, 2);
    assert.match(err, new RegExp(`There is no command ${word}: did you mean ${nearest}\\?`));
  }
});
