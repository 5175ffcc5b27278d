/** The status page as HTML. Texts are escaped; there is no style or script in the page itself. */
import type { RangeName } from "./status_page_history.ts";
import type { Bar, StatusView } from "./status_page_view.ts";

/** One line in a chart: its series, its name, the CSS variable of its colour. */
type Line = readonly [series: string, name: string, colour: string];

interface Chart {
  readonly title: string;
  /** How the script writes values: see its table of units. */
  readonly unit: string;
  readonly lines: readonly Line[];
}

const CHARTS: readonly Chart[] = [
  {
    title: "Throughput",
    unit: "rate",
    lines: [["enqueued", "enqueued", "blue"], ["fetched", "fetched", "teal"]],
  },
  { title: "Delivery queue", unit: "count", lines: [["depth", "messages waiting", "violet"]] },
  {
    title: "Time to accept a message",
    unit: "ms",
    lines: [["enqueueP50", "p50", "teal"], ["enqueueP99", "p99", "orange"]],
  },
  {
    title: "Logins",
    unit: "perMinute",
    lines: [["loginsOk", "succeeded", "green"], ["loginsFailed", "failed", "red"]],
  },
  {
    title: "Connections",
    unit: "count",
    lines: [["connections", "open", "blue"], ["sessions", "logged in", "green"]],
  },
  {
    title: "Refusals and errors",
    unit: "rate",
    lines: [["refused", "rate limited", "orange"], ["errors", "answered with an error", "red"]],
  },
  { title: "CPU", unit: "percent", lines: [["cpu", "of one core", "blue"]] },
  { title: "Memory", unit: "bytes", lines: [["memory", "resident", "violet"]] },
  { title: "Certificate", unit: "days", lines: [["certificateDays", "left", "green"]] },
  { title: "Backup", unit: "hours", lines: [["backupHours", "age", "teal"]] },
];

const TILES = [
  ["messages", "Messages in"],
  ["queue", "Delivery queue"],
  ["latency", "Enqueue p99"],
  ["logins", "Logins"],
  ["connections", "Connections"],
  ["process", "Process"],
] as const;

const FACTS = [
  ["accounts", "Accounts"],
  ["devices", "Devices"],
  ["keyPackages", "KeyPackages"],
  ["blobs", "Blobs"],
  ["disk", "Store on disk"],
  ["waiters", "Parked waits"],
  ["refused", "Rate limited since the start"],
  ["errors", "Errors since the start"],
] as const;

/** Text as HTML. */
export function escapeHtml(text: string): string {
  const names: Record<string, string> = { "&": "amp", "<": "lt", ">": "gt", '"': "quot", "'": "#39" };
  return text.replaceAll(/[&<>"']/g, (char) => `&${names[char]};`);
}

/** The whole page. */
export function statusHtml(view: StatusView, range: RangeName): string {
  const text = (id: string) => `<span id="${id}">${escapeHtml(view.texts[id] ?? "")}</span>`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>quicproquo status</title>
<link rel="icon" href="status/icon.svg">
<link rel="stylesheet" href="status/uplot.css">
<link rel="stylesheet" href="status/page.css">
<script src="status/uplot.js" defer></script>
<script src="status/page.js" defer></script>
</head>
<body data-range="${range}">
<header>
<h1>quicproquo</h1>
<p id="status" class="pill ${view.level}" role="status">${escapeHtml(view.status)}</p>
<p class="about">version ${text("version")} · up ${text("uptime")} · read at ${
    text("readAt")
  }<span id="stale" hidden></span></p>
</header>
<main>
<ul id="attention" class="attention" aria-label="Needs attention">${
    view.attention.map(attentionHtml).join("")
  }</ul>
<section class="tiles" aria-label="Now">
${TILES.map(([id, title]) => tile(title, text(id), `<p class="more">${text(`${id}More`)}</p>`)).join("\n")}
${tile("Certificate", text("certificate"), barHtml("certificate", view) + more(text("certificateMore")))}
${tile("Last backup", text("backup"), barHtml("backup", view) + more(text("backupMore")))}
</section>
<nav class="ranges" aria-label="Time span">${rangeLink("1h", "1 hour", range)}${
    rangeLink("24h", "24 hours", range)
  }</nav>
<noscript><p class="note">Charts need JavaScript; the numbers do not.</p></noscript>
<section class="charts" aria-label="Charts">
${CHARTS.map(chartHtml).join("\n")}
</section>
<section class="columns">
<div class="card"><h2>Requests of the last ten minutes</h2>
<div class="scroll"><table><thead><tr><th>Method</th><th>Rate</th><th>p50</th><th>p99</th><th>Errors</th></tr></thead>
<tbody id="methods">${view.methods.map(rowHtml).join("")}</tbody></table></div></div>
<div class="card"><h2>Store and totals</h2>
<dl>${FACTS.map(([id, title]) => `<div><dt>${title}</dt><dd>${text(id)}</dd></div>`).join("")}</dl></div>
</section>
</main>
<footer><a href="metrics">/metrics</a><a href="readyz">/readyz</a><a href="healthz">/healthz</a><a href="status.json">/status.json</a></footer>
</body>
</html>
`;
}

function tile(title: string, value: string, below: string): string {
  return `<div class="tile"><h2>${title}</h2><p class="value">${value}</p>${below}</div>`;
}

function more(text: string): string {
  return `<p class="more">${text}</p>`;
}

function attentionHtml({ level, text }: { level: string; text: string }): string {
  return `<li class="${level}">${escapeHtml(text)}</li>`;
}

function rowHtml(cells: readonly string[]): string {
  return `<tr>${cells.map((cell) => `<td>${escapeHtml(cell)}</td>`).join("")}</tr>`;
}

/** An SVG, as its width is an attribute: a style would be against the page's policy. */
function barHtml(id: "certificate" | "backup", view: StatusView): string {
  const { percent, level }: Bar = view.bars[id];
  return `<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">` +
    `<rect class="track" width="100" height="6"/>` +
    `<rect id="${id}Bar" class="${level}" width="${percent}" height="6"/></svg>`;
}

function rangeLink(range: RangeName, title: string, current: RangeName): string {
  return `<a href="?range=${range}"${range === current ? ' aria-current="page"' : ""}>${title}</a>`;
}

function chartHtml({ title, unit, lines }: Chart): string {
  const legend = lines.map(([series, name, colour]) =>
    `<li data-series="${series}" data-colour="${colour}"><i class="${colour}"></i>${name} <b>–</b></li>`
  ).join("");
  return `<figure class="card chart" data-unit="${unit}"><figcaption><h2>${title}</h2><ul>${legend}</ul></figcaption>` +
    `<div class="plot" role="img" aria-label="${title}"></div></figure>`;
}
