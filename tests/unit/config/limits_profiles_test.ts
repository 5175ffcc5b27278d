import assert from "node:assert/strict";
import { showSetting } from "../../../mod/config/describe.ts";
import { load } from "../../../mod/config/load.ts";
import { LIMITS_PROFILES, profileKeys, profileValue } from "../../../mod/config/limits_profiles.ts";
import { defaultSettings, optionOf } from "../../../mod/config/options.ts";

const loadWith = (flags: Record<string, string>) => load({ env: {}, flags, readFile: () => null });

Deno.test("the profile default changes nothing", () => {
  assert.deepEqual(profileKeys("default"), []);
  assert.deepEqual(loadWith({ "limits-profile": "default" }).settings, defaultSettings());
});

Deno.test("the profile bench raises limits that are not set, and leaves those that are", () => {
  const { settings } = loadWith({ "limits-profile": "bench", "limits-request-rate": "7" });
  assert.equal(settings.limits.sharedAddresses, true);
  assert.equal(settings.limits.queueDepthMax, 10_000_000);
  assert.equal(settings.limits.requestRate, 7);
  assert.equal(settings.limits.memoryBytesMax, defaultSettings().limits.memoryBytesMax);
});

Deno.test("every profile has values that its options would take, and only limits", () => {
  for (const profile of LIMITS_PROFILES) {
    for (const key of profileKeys(profile)) {
      const written = showSetting(loadWith({ "limits-profile": profile }).settings, key);
      assert.equal(optionOf(key).read(written), profileValue(profile, key), key);
      assert.match(key, /^limits\./);
    }
  }
});

Deno.test("the profile bench is warned about, and refused in production", () => {
  const { warnings } = loadWith({ "limits-profile": "bench" });
  assert.match(warnings.find(({ key }) => key === "limits_profile")!.text, /for measuring/);
  assert.throws(
    () => loadWith({ "limits-profile": "bench", production: "true" }),
    /limits_profile \(--limits-profile\): .*refused in production/,
  );
});
