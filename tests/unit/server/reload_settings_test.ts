import assert from "node:assert/strict";
import { buildSettings, defaultSettings, type OptionKey } from "../../../mod/config/options.ts";
import { deliveryLimitsOf, LiveSettings, withLiveOptions } from "../../../mod/server/reload_settings.ts";

Deno.test("LiveSettings.view() shows the settings of the moment, and makes them once for each", () => {
  const live = new LiveSettings(defaultSettings());
  let made = 0;
  const view = live.view((settings) => {
    made++;
    return deliveryLimitsOf(settings);
  });
  const before = view.payloadBytesMax;
  assert.deepEqual([before, view.recipientsMax, made], [2 << 20, 1024, 1]);
  live.replace(buildSettings(new Map([["limits.payload_bytes_max", 1 << 20]])));
  assert.deepEqual([view.payloadBytesMax, view.recipientsMax, made], [1 << 20, 1024, 2]);
  assert.deepEqual({ ...view }, deliveryLimitsOf(live.current));
});

Deno.test("withLiveOptions() takes live options from the new configuration, the others from the old", () => {
  const before = defaultSettings();
  const after = buildSettings(
    new Map<OptionKey, unknown>([
      ["limits.devices_max", 3],
      ["idle_timeout", 5_000],
      ["data_dir", "/elsewhere"],
    ]),
  );
  const merged = withLiveOptions(before, after);
  assert.equal(merged.limits.devicesMax, 3);
  assert.deepEqual([merged.idleTimeoutMs, merged.dataDir], [before.idleTimeoutMs, before.dataDir]);
});
