import assert from "node:assert/strict";
import {
  defaultSettings,
  environmentName,
  flagName,
  OPTION_KEYS,
  optionOf,
  settingName,
} from "../../../mod/config/options.ts";
import { Refusal } from "../../../mod/config/values.ts";

Deno.test("every option has a well-formed key of its own, in each spelling", () => {
  const spellings = [environmentName, flagName, (key: string) => key];
  for (const spell of spellings) assert.equal(new Set(OPTION_KEYS.map(spell)).size, OPTION_KEYS.length);
  for (const key of OPTION_KEYS) assert.match(key, /^((limits|backup|federation)\.)?[a-z]+(_[a-z0-9]+)*$/);
});

Deno.test("names follow one rule", () => {
  assert.equal(environmentName("limits.shared_addresses"), "QPQ_LIMITS_SHARED_ADDRESSES");
  assert.equal(flagName("limits.shared_addresses"), "limits-shared-addresses");
  assert.equal(settingName("limits.shared_addresses"), "sharedAddresses");
  assert.equal(settingName("drain_timeout"), "drainTimeoutMs");
});

Deno.test("every default that is written down is what its reader makes of it", () => {
  for (const key of OPTION_KEYS) {
    const option = optionOf(key);
    if (option.default === null) continue;
    assert.deepEqual(option.read(option.defaultText), option.default, key);
  }
});

Deno.test("every option is documented in a sentence", () => {
  for (const key of OPTION_KEYS) assert.match(optionOf(key).text, /^[A-Z`].*\.$/s, key);
});

Deno.test("the variables of the operations contract exist with their defaults", () => {
  const variables = new Set(OPTION_KEYS.map(environmentName));
  const wanted =
    "CONFIG DATA_DIR LISTEN TLS_CERT TLS_KEY AUTH_TOKEN DB_KEY STORE_BACKEND METRICS_LISTEN METRICS_ENABLED LOG PRODUCTION DRAIN_TIMEOUT";
  for (const name of wanted.split(" ")) assert.ok(variables.has(`QPQ_${name}`), name);
  const settings = defaultSettings();
  assert.deepEqual(settings.listen, { hostname: "0.0.0.0", port: 7000 });
  assert.deepEqual(settings.metricsListen, { hostname: "0.0.0.0", port: 9090 });
  assert.deepEqual([settings.metricsEnabled, settings.dataDir, settings.storeBackend], [
    false,
    "./data",
    "sqlcipher",
  ]);
});

Deno.test("no secret's reader repeats the secret", () => {
  for (const key of OPTION_KEYS.filter((key) => optionOf(key).type === "secret")) {
    const refusal = optionOf(key).read("planted\0");
    assert.ok(refusal instanceof Refusal && !refusal.text.includes("planted"), key);
  }
});
