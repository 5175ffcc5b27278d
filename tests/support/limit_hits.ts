/** What limits and deadlines have counted, as a scrape shows it. */

/** Where metrics are: a server of this process, or the text of a scrape. */
type Scraped = string | {
  readonly server: {
    readonly context: { readonly metrics: { expose(): Promise<{ body: string }> } };
  };
};

/** Refusals by limit, those that are not zero; `total` is the contract's counter. */
export function limitHits(scraped: Scraped): Promise<Record<string, number>> {
  return counted(scraped, /^(rate_limit_hit_total|qpq_rate_limit_hits_total\{limit="(\w+)"\}) (\d+)$/gm);
}

/** Deadlines that were missed, those that are not zero. */
export function deadlinesMissed(scraped: Scraped): Promise<Record<string, number>> {
  return counted(scraped, /^(qpq_deadlines_missed_total\{deadline="(\w+)"\}) (\d+)$/gm);
}

async function counted(scraped: Scraped, line: RegExp): Promise<Record<string, number>> {
  const body = typeof scraped === "string" ? scraped : (await scraped.server.context.metrics.expose()).body;
  const all = [...body.matchAll(line)].map(([, , name, count]) => [name ?? "total", Number(count)] as const);
  return Object.fromEntries(all.filter(([, count]) => count > 0));
}
