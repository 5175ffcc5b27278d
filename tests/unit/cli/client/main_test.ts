import assert from "node:assert/strict";
import { runCommandLine } from "../../../../mod/cli/main.ts";
import { FakeTerminal } from "../../../support/fake_terminal.ts";

async function run(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const terminal = new FakeTerminal();
  const code = await runCommandLine("qpq-client", { args, terminal });
  return { code, out: terminal.printed, err: terminal.said };
}

/** The command words that a help text lists. */
function commandsIn(help: string): string[] {
  const list = help.split("Commands:\n")[1]?.split(/^\S/m)[0] ?? "";
  return [...list.matchAll(/^ {2}([a-z]+)(?: |$)/gm)].map(([, name]) => name!).filter((name) =>
    name !== "help"
  );
}

Deno.test("every command of the client has help with an example", async () => {
  const top = commandsIn((await run("--help")).out);
  assert.ok(top.length >= 18, `${top}`);
  for (const name of top) {
    const { code, out } = await run(name, "--help");
    assert.equal(code, 0);
    const inner = commandsIn(out);
    if (inner.length === 0) assert.match(out, /Examples?:\n {2}qpq-client \S/, name);
    for (const word of inner) {
      assert.match((await run(name, word, "--help")).out, /Examples?:\n {2}qpq-client \S/, `${name} ${word}`);
    }
  }
});

Deno.test("an executable called qpq-client takes the client's words without the word client", async () => {
  const { code, err } = await run("client", "ping");
  assert.equal(code, 2);
  assert.match(err, /There is no command client/);
  assert.match((await run("ping", "--help")).out, /^Usage: qpq-client ping/);
});
