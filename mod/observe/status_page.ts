/**
 * The status page of the metrics listener: HTML that says everything without a script, charts that a script of
 * ours draws with uPlot and refreshes. All of it comes from this executable: nothing is loaded from elsewhere.
 */
import uplotCss from "uplot/dist/uPlot.min.css" with { type: "text" };
import uplotScript from "uplot/dist/uPlot.iife.min.js" with { type: "text" };
import style from "./status_page_assets/page.css" with { type: "text" };
import icon from "./status_page_assets/icon.svg" with { type: "text" };
import script from "./status_page_assets/page.js" with { type: "text" };
import type { Clock } from "../base/clock.ts";
import type { Check } from "./health.ts";
import type { Metrics } from "./metrics.ts";
import { statusHtml } from "./status_page_html.ts";
import { type RangeName, RANGES, SAMPLE_MS, StatusHistory } from "./status_page_history.ts";
import { statusView } from "./status_page_view.ts";

/** A body and its headers. */
export interface Page {
  readonly type: string;
  readonly body: string;
  readonly headers: Readonly<Record<string, string>>;
}

/** What it needs of the server. */
export interface StatusPageOptions {
  readonly metrics: Metrics;
  readonly clock: Clock;
  /** Writes to the store, so it is asked once for all readers of a few seconds. */
  readonly readiness: () => Promise<{ readonly ready: boolean; readonly checks: readonly Check[] }>;
}

/** Only what is served beside the page, and the styles that uPlot sets on its elements through the DOM. */
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const ASSETS: Readonly<Record<string, { type: string; body: string }>> = {
  "/status/uplot.js": { type: "text/javascript; charset=utf-8", body: uplotScript },
  "/status/uplot.css": { type: "text/css; charset=utf-8", body: uplotCss },
  "/status/page.js": { type: "text/javascript; charset=utf-8", body: script },
  "/status/page.css": { type: "text/css; charset=utf-8", body: style },
  "/status/icon.svg": { type: "image/svg+xml", body: icon },
};

/** Paths that {@link StatusPage.answer} knows. */
export const STATUS_PATHS: ReadonlySet<string> = new Set(["/", "/status.json", ...Object.keys(ASSETS)]);

/** The page, its data and its assets. */
export class StatusPage {
  readonly #options: StatusPageOptions;
  readonly #history: StatusHistory;
  #readiness:
    | { readonly at: number; readonly result: ReturnType<StatusPageOptions["readiness"]> }
    | undefined;

  constructor(options: StatusPageOptions) {
    this.#options = options;
    this.#history = new StatusHistory(options.metrics, options.clock);
  }

  /** Begins to collect what the charts show. */
  start(): void {
    this.#history.start();
  }

  /** Ends that. Idempotent. */
  stop(): Promise<void> {
    return this.#history.stop();
  }

  /** Answers one of STATUS_PATHS. */
  async answer(url: URL): Promise<Page> {
    const asset = ASSETS[url.pathname];
    if (asset) return { ...asset, headers: {} };
    const range = rangeOf(url.searchParams.get("range"));
    const since = Number(url.searchParams.get("since") ?? 0);
    const { ready, checks } = await this.#ready();
    const view = await statusView(this.#history, {
      ready,
      checks,
      range,
      sinceS: Number.isFinite(since) ? since : 0,
    });
    if (url.pathname === "/status.json") {
      return { type: "application/json", body: JSON.stringify(view), headers: {} };
    }
    const headers = { "content-security-policy": POLICY };
    return { type: "text/html; charset=utf-8", body: statusHtml(view, range), headers };
  }

  #ready(): ReturnType<StatusPageOptions["readiness"]> {
    const now = this.#options.clock.monotonic();
    if (!this.#readiness || now - this.#readiness.at >= SAMPLE_MS) {
      this.#readiness = { at: now, result: this.#options.readiness() };
    }
    return this.#readiness.result;
  }
}

function rangeOf(text: string | null): RangeName {
  return text !== null && Object.hasOwn(RANGES, text) ? text as RangeName : "1h";
}
