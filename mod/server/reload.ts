/**
 * Reads the configuration again while the server runs. All of it is read, checked and prepared before any of it is in
 * force: on a problem nothing has changed. Live options take effect, the others are named; environment and flags are
 * those of the start.
 */
import type { AccessToken, AccessTokens } from "../auth/tokens.ts";
import { KeyedMutex } from "../base/keyed_mutex.ts";
import { logger, setLogFilter } from "../base/log.ts";
import { changedOptions, ConfigError, type Loaded, problemLine } from "../config/load.ts";
import type { OptionKey, Settings } from "../config/options.ts";
import { messageOf } from "../base/errors.ts";
import { AdminError } from "../admin/operations.ts";
import type { ReloadReport } from "../admin/operations_live.ts";
import { acceptedTokens } from "../admin/rotate_auth_token.ts";
import type { CertificateFiles, Certificates, PreparedCertificate } from "./certificates.ts";
import type { Limits } from "./limits.ts";
import type { MemoryBudget } from "./memory_budget.ts";
import { type LiveSettings, withLiveOptions } from "./reload_settings.ts";

const log = logger("server");

/** The parts that a reload changes. */
export interface ReloadParts {
  readonly live: LiveSettings;
  /** Reads the configuration as at the start; null: there was none to read. */
  readonly load: (() => Loaded) | null;
  readonly certificates: Certificates;
  readonly tokens: AccessTokens;
  readonly limits: Limits;
  readonly memory: MemoryBudget;
  /** The live options are in force. */
  readonly onApplied: () => void;
  /** The tokens change: logs hide them. */
  readonly onTokens: (tokens: readonly AccessToken[]) => void;
  readonly onReload: (ok: boolean) => void;
}

/** Everything of a new configuration, ready to be put in force. */
interface Prepared {
  readonly loaded: Settings;
  readonly tokens: readonly AccessToken[];
  readonly certificate: PreparedCertificate;
  readonly changed: { live: OptionKey[]; restart: OptionKey[] };
  readonly notes: string[];
}

/** Reloads, one at a time. */
export class Reloader {
  readonly #parts: ReloadParts;
  readonly #mutex = new KeyedMutex();
  /** The filter that is in force: the configured one, or one that an operator set since. */
  logFilter: string;

  constructor(parts: ReloadParts) {
    this.#parts = parts;
    this.logFilter = parts.live.current.log;
  }

  /** Throws AdminError, and nothing has changed, when the configuration or a file of it cannot be used. */
  reload(): Promise<ReloadReport> {
    const { certificates, onReload } = this.#parts;
    return this.#mutex.run("reload", async () => {
      try {
        const report = await certificates.exclusively(async () =>
          await this.#putInForce(await this.#prepare())
        );
        onReload(true);
        log.info("configuration reloaded", { applied: [...report.applied], restart: [...report.restart] });
        return report;
      } catch (cause) {
        onReload(false);
        log.warn("the configuration was not reloaded, the old one stays: {reason}", {
          reason: messageOf(cause),
        });
        throw new AdminError(`The old configuration stays. ${messageOf(cause)}`, { cause });
      }
    });
  }

  /** Runs `work`, which changes what is in force, while no reload does. */
  exclusively<T>(work: () => Promise<T>): Promise<T> {
    return this.#mutex.run("reload", work);
  }

  /** What a reload would refuse now, in words; nothing is changed. */
  async problems(): Promise<string[]> {
    if (!this.#parts.load) return [];
    try {
      await this.#parts.certificates.exclusively(() => this.#prepare());
      return [];
    } catch (error) {
      return error instanceof ConfigError ? error.problems.map(problemLine) : [messageOf(error)];
    }
  }

  async #prepare(): Promise<Prepared> {
    const { load, live, certificates } = this.#parts;
    if (!load) {
      throw new AdminError("This server was started without a configuration that could be read again");
    }
    const { settings: loaded, warnings } = load();
    const settings = withLiveOptions(live.current, loaded);
    if (!settings.authToken && !settings.allowNoAuthToken) {
      throw new AdminError(
        "There is no access token any more: put it back, or set auth_token_file (QPQ_AUTH_TOKEN_FILE)",
      );
    }
    return {
      loaded,
      tokens: await acceptedTokens(settings),
      certificate: await certificates.prepare(certificateFilesOf(settings)),
      changed: changedOptions(live.current, loaded),
      notes: warnings.map(problemLine),
    };
  }

  async #putInForce({ loaded, tokens, certificate, changed, notes }: Prepared): Promise<ReloadReport> {
    const { live, certificates, limits, memory, onTokens } = this.#parts;
    const applied: string[] = [...changed.live];
    // The listener may refuse a certificate: it comes first, nothing after it can fail.
    if (certificates.use(certificate)) applied.push("certificate");
    // Made now: what an operation changed while this was prepared, such as a rotated db_key, stays.
    const settings = withLiveOptions(live.current, loaded);
    live.replace(settings);
    limits.update(settings.limits);
    memory.setMax(settings.limits.memoryBytesMax);
    this.#parts.onApplied();
    if (this.logFilter !== settings.log && !applied.includes("log")) applied.push("log");
    setLogFilter(settings.log);
    this.logFilter = settings.log;
    onTokens(tokens);
    await this.#parts.tokens.replace(tokens);
    if (changed.restart.length > 0) notes.push(`Restart the server for ${changed.restart.join(", ")}`);
    return { applied, restart: changed.restart, notes };
  }
}

/** The operator's certificate files; null: managed ones. */
export function certificateFilesOf({ tlsCert, tlsKey }: Settings): CertificateFiles | null {
  return tlsCert !== null && tlsKey !== null ? { certificate: tlsCert, key: tlsKey } : null;
}
