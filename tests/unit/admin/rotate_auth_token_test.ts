import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { acceptedTokens, dropEndedTokens } from "../../../mod/admin/rotate_auth_token.ts";
import type { Secret } from "../../../mod/config/options.ts";
import { tempFolder } from "../../support/temp_folder.ts";

const digest = (token: string) => createHash("sha256").update(token).digest("hex");

/** A data folder with these lines, and ends of some of them. */
async function managed(lines: string[], ends: Record<string, number> | null) {
  const folder = await tempFolder();
  const path = join(folder.path, "secrets", "auth-token");
  await Deno.mkdir(join(folder.path, "secrets"));
  await Deno.writeTextFile(path, lines.map((line) => `${line}\n`).join(""));
  if (ends) {
    const bySha256 = Object.fromEntries(Object.entries(ends).map(([token, until]) => [digest(token), until]));
    await Deno.writeTextFile(`${path}.ends.json`, JSON.stringify({ format: 1, ends: bySha256 }));
  }
  const authToken: Secret = { lines, from: "managed", path };
  return { ...folder, path, settings: { authToken, dataDir: folder.path } };
}

Deno.test("acceptedTokens() gives each further line its end, by the token and not by its place", async () => {
  await using world = await managed(["new", "old", "older"], { older: 1000 });
  assert.deepEqual(await acceptedTokens(world.settings), [
    { token: "new", until: null },
    { token: "old", until: null },
    { token: "older", until: 1000 },
  ]);
});

Deno.test("acceptedTokens() never ends the first line: a rotation cut off between its files changes nothing", async () => {
  await using world = await managed(["old"], { old: 1000 });
  assert.deepEqual(await acceptedTokens(world.settings), [{ token: "old", until: null }]);
});

Deno.test("acceptedTokens() refuses damaged ends instead of accepting for ever", async () => {
  await using world = await managed(["new", "old"], null);
  await Deno.writeTextFile(`${world.path}.ends.json`, "{");
  await assert.rejects(acceptedTokens(world.settings), /is damaged: leave only the wanted token/);
});

Deno.test("acceptedTokens() takes all lines of the operator's own sources as they are", async () => {
  await using world = await managed(["new", "old"], { old: 1000 });
  const authToken: Secret = { ...world.settings.authToken, from: "environment", path: null };
  assert.deepEqual((await acceptedTokens({ ...world.settings, authToken })).map(({ until }) => until), [
    null,
    null,
  ]);
  assert.deepEqual(await acceptedTokens({ ...world.settings, authToken: null }), []);
});

Deno.test("dropEndedTokens() takes ended lines out of the file, and only those", async () => {
  await using world = await managed(["new", "old", "older"], { old: 2000, older: 1000 });
  const drop = async (now: number) => {
    let left: string[] | null = null;
    await dropEndedTokens(world.settings, {
      now,
      onDropped: async (tokens) => {
        left = tokens.map(({ token }) => token);
      },
    });
    return left;
  };
  assert.equal(await drop(999), null);
  assert.deepEqual(await drop(1000), ["new", "old"]);
  assert.equal(await Deno.readTextFile(world.path), "new\nold\n");
  assert.equal(await drop(1000), null);
  assert.deepEqual(await drop(5000), ["new"]);
});
