import assert from "node:assert/strict";
import { CancelledError, Prompter } from "../../../../mod/cli/client/prompter.ts";
import { FakeTerminal } from "../../../support/fake_terminal.ts";

async function secret(
  ...typed: (string | Uint8Array)[]
): Promise<{ answer: string; terminal: FakeTerminal }> {
  const terminal = new FakeTerminal({ typed });
  return { answer: await new Prompter(terminal).secret("Password: "), terminal };
}

Deno.test("secret() shows nothing of what is typed, and puts the terminal back", async () => {
  const { answer, terminal } = await secret("hun", "ter2\r");
  assert.equal(answer, "hunter2");
  assert.equal(terminal.said, "Password: \n");
  assert.deepEqual(terminal.modes, ["raw", "cooked"]);
});

Deno.test("secret() takes corrections, and characters that come in pieces", async () => {
  assert.equal((await secret("ab\x7fc\r")).answer, "ac");
  assert.equal((await secret("pässwörd\x7f\x7f\x7f\r")).answer, "pässw");
  assert.equal((await secret("wrong\x15right\r")).answer, "right");
  assert.equal((await secret("a\x1b[Ab\x1b[3~c\r")).answer, "abc");
  const bytes = new TextEncoder().encode("ö\r");
  assert.equal((await secret(bytes.subarray(0, 1), bytes.subarray(1))).answer, "ö");
});

Deno.test("answers that are pasted at once are taken one after another", async () => {
  for (const end of ["\r", "\n", "\r\n"]) {
    const terminal = new FakeTerminal({ typed: [`one${end}two${end}`] });
    const prompter = new Prompter(terminal);
    assert.deepEqual([await prompter.secret("a"), await prompter.secret("b")], ["one", "two"]);
  }
});

Deno.test("secret() is given up with Ctrl-C, with Ctrl-D in an empty line, and at the end of the input", async () => {
  for (const typed of [["ab\x03"], ["\x04"], ["ab"], []]) {
    await assert.rejects(secret(...typed), CancelledError);
  }
  assert.equal((await secret("ab\x04\r")).answer, "ab");
});

Deno.test("line() shows what is typed and takes back what is deleted", async () => {
  const terminal = new FakeTerminal({ typed: ["yeß\x7fs\r"] });
  assert.equal(await new Prompter(terminal).line("Sure? "), "yes");
  assert.equal(terminal.said, "Sure? yeß\b \bs\n");
});
