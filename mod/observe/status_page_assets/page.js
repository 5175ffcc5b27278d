/**
 * Draws the charts of the status page with uPlot and asks for what is new every few seconds. Everything in words
 * comes ready from the server; this puts it in place.
 */
/* global uPlot */
"use strict";

const REFRESH_MS = 5000;

const number = (value) =>
  value.toLocaleString("en-US", { maximumFractionDigits: value >= 100 ? 0 : value >= 10 ? 1 : 2 });

const scaled = (value, base, names) => {
  let unit = 0;
  for (; Math.abs(value) >= base && unit < names.length - 1; unit++) value /= base;
  return number(value) + names[unit];
};

/** How values of a chart are written, and the least that its axis reaches to. */
const UNITS = {
  rate: { write: (v) => scaled(v, 1000, ["/s", "k/s", "M/s"]), least: 1 },
  perMinute: { write: (v) => scaled(v, 1000, ["/min", "k/min"]), least: 1 },
  count: { write: (v) => scaled(v, 1000, ["", "k", "M"]), least: 4 },
  ms: { write: (v) => (v >= 1000 ? number(v / 1000) + " s" : number(v) + " ms"), least: 1 },
  percent: { write: (v) => number(v) + " %", least: 10 },
  bytes: {
    write: (v) => scaled(v, 1024, [" B", " kB", " MB", " GB", " TB"]),
    least: 1024,
    incrs: Array.from({ length: 44 }, (_, i) => 2 ** i),
  },
  days: { write: (v) => number(v) + " d", least: 1 },
  hours: { write: (v) => number(v) + " h", least: 1 },
};

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

/** One chart: a figure of the page, and the samples of its series. */
class Chart {
  constructor(figure) {
    this.plot = figure.querySelector(".plot");
    this.unit = UNITS[figure.dataset.unit];
    this.lines = [...figure.querySelectorAll("li")].map((item) => ({
      name: item.dataset.series,
      colour: item.dataset.colour,
      value: item.querySelector("b"),
    }));
    new ResizeObserver(() => this.chart?.setSize(this.size())).observe(this.plot);
  }

  size() {
    return { width: this.plot.clientWidth, height: this.plot.clientHeight };
  }

  /** Draws anew: at first, and when the colours change. */
  draw(samples) {
    this.chart?.destroy();
    this.chart = new uPlot(this.options(), this.data(samples), this.plot);
    this.show(samples);
  }

  update(samples) {
    this.chart.setData(this.data(samples));
    this.show(samples);
  }

  data(samples) {
    return [samples.times, ...this.lines.map((line) => samples.series[line.name])];
  }

  show(samples) {
    const has = this.lines.some((line) => samples.series[line.name].some((value) => value !== null));
    this.plot.classList.toggle("empty", !has);
    if (this.chart.cursor.idx === null || this.chart.cursor.idx === undefined) this.legend(null);
  }

  /** Values at the pointer, or the newest ones. */
  legend(index) {
    this.lines.forEach((line, i) => {
      const values = this.chart.data[i + 1];
      const value = index === null ? values.findLast((each) => each !== null) : values[index];
      line.value.textContent = value === null || value === undefined ? "–" : this.unit.write(value);
    });
  }

  options() {
    const axis = {
      stroke: colour("soft"),
      grid: { stroke: colour("grid"), width: 1 },
      ticks: { show: false },
      font: "11px system-ui, sans-serif",
    };
    return {
      ...this.size(),
      legend: { show: false },
      cursor: { sync: { key: "status" }, y: false, points: { size: 7 } },
      padding: [8, 18, 0, 0],
      scales: {
        x: { time: true, range: (_, from, to) => [Math.min(from, to - 300), to] },
        y: { range: (_, __, most) => [0, Math.max(this.unit.least, (most || 0) * 1.15)] },
      },
      axes: [
        { ...axis, space: 70, size: 24, values: clock },
        {
          ...axis,
          size: 62,
          space: 32,
          values: (_, ticks) => ticks.map((tick) => this.unit.write(tick)),
          ...(this.unit.incrs ? { incrs: this.unit.incrs } : {}),
        },
      ],
      series: [
        {},
        ...this.lines.map((line, i) => ({
          stroke: colour(line.colour),
          width: 1.75,
          points: { show: lonely },
          fill: i === 0 ? colour(line.colour) + "1f" : undefined,
        })),
      ],
      hooks: { setCursor: [(chart) => this.legend(chart.cursor.idx ?? null)] },
    };
  }
}

/** A single value between gaps has no line: show it as a point. */
function lonely(chart, series) {
  return chart.data[series].filter((value) => value !== null).length < 3;
}

function clock(_, ticks) {
  return ticks.map((tick) =>
    new Date(tick * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false })
  );
}

/** The samples that the page holds; new ones are appended, those that leave the window are dropped. */
class Window {
  constructor(samples) {
    this.times = samples.times;
    this.series = samples.series;
  }

  add(samples) {
    const keep = this.times.findIndex((time) => time > (samples.times.at(-1) ?? 0) - samples.windowS);
    const joined = (old, fresh) => old.slice(Math.max(0, keep)).concat(fresh);
    for (const name of Object.keys(this.series)) {
      this.series[name] = joined(this.series[name], samples.series[name]);
    }
    this.times = joined(this.times, samples.times);
  }
}

function element(name, attributes, children) {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...children);
  return made;
}

/** Puts the server's words in place. */
function showWords(view) {
  for (const [id, text] of Object.entries(view.texts)) document.getElementById(id).textContent = text;
  const status = document.getElementById("status");
  status.textContent = view.status;
  status.className = "pill " + view.level;
  for (const [id, bar] of Object.entries(view.bars)) {
    const rect = document.getElementById(id + "Bar");
    rect.setAttribute("width", bar.percent);
    rect.setAttribute("class", bar.level);
  }
  document.getElementById("attention").replaceChildren(
    ...view.attention.map(({ level, text }) => element("li", { className: level }, [text])),
  );
  document.getElementById("methods").replaceChildren(
    ...view.methods.map((cells) => element("tr", {}, cells.map((cell) => element("td", {}, [cell])))),
  );
}

function showStale(text) {
  const stale = document.getElementById("stale");
  stale.hidden = text === "";
  stale.textContent = text;
}

async function fetchView(since) {
  const response = await fetch("status.json?range=" + document.body.dataset.range + "&since=" + since);
  if (!response.ok) throw new Error("the server answered " + response.status);
  return await response.json();
}

async function main() {
  const charts = [...document.querySelectorAll(".chart")].map((figure) => new Chart(figure));
  const first = await fetchView(0);
  const samples = new Window(first.samples);
  const drawAll = () => charts.forEach((chart) => chart.draw(samples));
  drawAll();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  const refresh = async () => {
    if (document.hidden) return;
    try {
      const view = await fetchView(samples.times.at(-1) ?? 0);
      samples.add(view.samples);
      showWords(view);
      charts.forEach((chart) => chart.update(samples));
      showStale("");
      document.body.dataset.refreshed = String(Number(document.body.dataset.refreshed ?? 0) + 1);
    } catch {
      showStale(" · no answer, these numbers are old");
    }
  };
  setInterval(refresh, REFRESH_MS);
  document.addEventListener("visibilitychange", refresh);
  document.body.dataset.drawn = "true";
}

main().catch(() => showStale(" · charts could not be drawn"));
