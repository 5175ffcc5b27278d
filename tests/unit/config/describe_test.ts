import assert from "node:assert/strict";
import { DOCUMENTS, envExample, showSetting } from "../../../mod/config/describe.ts";
import { load } from "../../../mod/config/load.ts";
import { defaultSettings, environmentName, OPTION_KEYS, optionOf } from "../../../mod/config/options.ts";

for (const { path, content } of DOCUMENTS) {
  Deno.test(`${path} is as the option table makes it`, () => {
    const committed = Deno.readTextFileSync(new URL(`../../../${path}`, import.meta.url));
    assert.equal(
      committed,
      content(),
      "deno run --allow-read=. --allow-write=.env.example,ops mod/config/describe.ts --write",
    );
  });

  Deno.test(`${path} names every option's variable`, () => {
    const text = content();
    for (const key of OPTION_KEYS) assert.ok(text.includes(environmentName(key)), key);
  });
}

/** The assignments of an env file, as a shell or Docker reads them. */
function assignments(text: string): [string, string][] {
  return text.split("\n").map((line) => /^#?(QPQ_\w+)=(.*)$/.exec(line)).filter((match) => match !== null)
    .map((match) => [match[1]!, match[2]!]);
}

Deno.test("the variables of .env.example, uncommented, are the defaults", () => {
  const env = Object.fromEntries(assignments(envExample()).filter(([name]) => name !== "QPQ_CONFIG"));
  assert.ok(Object.keys(env).length >= OPTION_KEYS.length);
  assert.deepEqual(load({ env, flags: {}, readFile: () => null }).settings, defaultSettings());
});

Deno.test("showSetting() shows what would be written, and never a secret", () => {
  const env = { QPQ_AUTH_TOKEN: "planted", QPQ_LIMITS_TTL_MAX: "45d", QPQ_LISTEN: "[::]:1" };
  const { settings } = load({ env, flags: {}, readFile: () => null });
  assert.equal(showSetting(settings, "auth_token"), "set (environment)");
  assert.equal(showSetting(settings, "db_key"), "not set");
  assert.equal(showSetting(settings, "limits.ttl_max"), "45d");
  assert.equal(showSetting(settings, "limits.payload_bytes_max"), "2MiB");
  assert.equal(showSetting(settings, "listen"), "[::]:1");
  assert.equal(showSetting(settings, "tls_cert"), optionOf("tls_cert").defaultText);
});
