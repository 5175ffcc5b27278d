/**
 * Other defaults for a whole group of options, by name. A profile only changes what an option has when nothing sets
 * it; whatever is set anywhere wins. Values are in the options' own units (durations in milliseconds).
 */
import type { OptionKey } from "./options.ts";

/** Names of the profiles. */
export const LIMITS_PROFILES = ["default", "bench"] as const;

/** Name of a profile. */
export type LimitsProfile = (typeof LIMITS_PROFILES)[number];

/**
 * What a load generator on one machine runs into, as all its devices come from one address. What protects the
 * process itself (memory, requests in flight, sizes) stays as it is.
 */
const BENCH: Partial<Record<OptionKey, number | boolean>> = {
  "limits.shared_addresses": true,
  "limits.connections_max": 1_000_000,
  "limits.handshakes_max": 16_384,
  "limits.handshake_rate": 100_000,
  "limits.malformed_rate": 1_000_000,
  "limits.request_rate": 1_000_000,
  "limits.request_burst": 10_000_000,
  "limits.login_rate": 1_000_000,
  "limits.login_rate_account": 1_000_000,
  "limits.claim_rate": 1_000_000,
  "limits.claim_budget_target": 10_000_000,
  "limits.claim_budget_claimer": 10_000_000,
  "limits.queue_depth_max": 10_000_000,
  "limits.queue_bytes_max": 1024 ** 4,
  "limits.queue_share_percent": 100,
  "limits.sender_bytes_per_day": 1024 ** 5,
};

const PROFILES: Readonly<Record<LimitsProfile, Partial<Record<OptionKey, number | boolean>>>> = {
  default: {},
  bench: BENCH,
};

/** What `profile` has instead of the default of an option; undefined where it leaves that. */
export function profileValue(profile: LimitsProfile, key: OptionKey): number | boolean | undefined {
  return PROFILES[profile][key];
}

/** The options that `profile` changes. */
export function profileKeys(profile: LimitsProfile): OptionKey[] {
  return Object.keys(PROFILES[profile]) as OptionKey[];
}
