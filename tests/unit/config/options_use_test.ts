/** Every option does something: the program outside mod/config reads its setting. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { OPTION_KEYS, type OptionKey, settingName } from "../../../mod/config/options.ts";

const MOD = new URL("../../../mod", import.meta.url).pathname;

/** Used where configurations are loaded and checked, which is all they are for. */
const OF_LOADING: ReadonlySet<OptionKey> = new Set<OptionKey>([
  "config",
  "allow_key_in_data_dir",
  "limits_profile",
]);

async function sources(folder: string): Promise<string[]> {
  const texts: string[] = [];
  for await (const entry of Deno.readDir(folder)) {
    const path = join(folder, entry.name);
    if (entry.isDirectory && path !== join(MOD, "config")) texts.push(...await sources(path));
    else if (entry.isFile && entry.name.endsWith(".ts")) texts.push(await Deno.readTextFile(path));
  }
  return texts;
}

/** Is the setting taken out of something: `settings.name`, or `{ name } = settings`? Short names need the former word. */
function isRead(text: string, key: OptionKey): boolean {
  const name = settingName(key);
  const owner = /[A-Z]/.test(name)
    ? "[\\w)\\]]"
    : "(?:[sS]ettings(?:\\(\\))?|[lL]imits|[bB]ackup|[fF]ederation|current)";
  const property = new RegExp(`${owner}\\s*\\??\\.\\s*${name}\\b`);
  const taken = new RegExp(
    `\\{[^{}]*\\b${name}\\b[^{}]*\\}(?:\\s*=\\s*[\\w.#]*|:\\s*)(?:[sS]ettings|[lL]imits|[bB]ackup|[fF]ederation)`,
  );
  return property.test(text) || taken.test(text);
}

Deno.test("every option is read outside mod/config", async () => {
  const text = (await sources(MOD)).join("\n");
  const unread = OPTION_KEYS.filter((key) => !OF_LOADING.has(key) && !isRead(text, key));
  assert.deepEqual(unread, []);
});

Deno.test("an option that nobody reads is found", () => {
  assert.equal(isRead("const x = settings.drainTimeoutMs;", "drain_timeout"), true);
  assert.equal(isRead("const { drainTimeoutMs, listen } = context.settings;", "drain_timeout"), true);
  assert.equal(isRead("perMinute(settings.helloRate)", "limits.hello_rate"), true);
  assert.equal(isRead("helloRate: 1, hello_rate, settings.helloRateMax", "limits.hello_rate"), false);
  assert.equal(isRead("console.log(1); const log = logger()", "log"), false);
  assert.equal(isRead("configureLogs({ filter: settings.log })", "log"), true);
});
