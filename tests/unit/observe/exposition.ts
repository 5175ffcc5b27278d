/** A strict reader of the Prometheus text format 0.0.4: throws for whatever a scraper would refuse. */

/** One line with a value. */
export interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** A whole exposition. */
export interface Exposition {
  readonly types: ReadonlyMap<string, string>;
  readonly helps: ReadonlyMap<string, string>;
  readonly samples: readonly Sample[];
}

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*/;
const LABEL = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(,|(?=\}))/;
const VALUE = /^(?:[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?|[+-]?Inf|NaN)$/i;

function parseSample(line: string): Sample {
  const name = NAME.exec(line)?.[0];
  if (!name) throw new SyntaxError(`No name: ${line}`);
  let rest = line.slice(name.length);
  const labels: Record<string, string> = {};
  if (rest.startsWith("{")) {
    rest = rest.slice(1);
    while (!rest.startsWith("}")) {
      const match = LABEL.exec(rest);
      if (!match) throw new SyntaxError(`Bad labels: ${line}`);
      if (Object.hasOwn(labels, match[1]!)) throw new SyntaxError(`Label twice: ${line}`);
      labels[match[1]!] = match[2]!.replaceAll(/\\(.)/g, (_, char) => char === "n" ? "\n" : char);
      rest = rest.slice(match[0].length);
    }
    rest = rest.slice(1);
  }
  const value = rest.slice(1);
  if (rest[0] !== " " || !VALUE.test(value)) throw new SyntaxError(`Bad value: ${line}`);
  return {
    name,
    labels,
    value: /inf/i.test(value) ? (value[0] === "-" ? -Infinity : Infinity) : Number(value),
  };
}

/** The metric that a sample belongs to. */
function familyOf(name: string, types: ReadonlyMap<string, string>): string | undefined {
  if (types.has(name)) return types.get(name) === "histogram" ? undefined : name;
  const base = name.replace(/_(bucket|sum|count)$/, "");
  return types.get(base) === "histogram" ? base : undefined;
}

function checkHistogram(name: string, samples: readonly Sample[]): void {
  const series = new Map<string, Sample[]>();
  for (const sample of samples.filter((each) => each.name === `${name}_bucket`)) {
    const { le, ...others } = sample.labels;
    if (le === undefined) throw new SyntaxError(`${name}: bucket without le`);
    const key = JSON.stringify(others, Object.keys(others).sort());
    series.set(key, [...series.get(key) ?? [], sample]);
  }
  for (const [key, buckets] of series) {
    const counts = buckets.map((bucket) => bucket.value);
    if (buckets.at(-1)!.labels.le !== "+Inf") throw new SyntaxError(`${name}: no +Inf bucket`);
    if (counts.some((count, i) => i > 0 && count < counts[i - 1]!)) {
      throw new SyntaxError(`${name}: buckets fall`);
    }
    const total = samples.find((each) =>
      each.name === `${name}_count` && JSON.stringify(each.labels, Object.keys(each.labels).sort()) === key
    );
    if (total?.value !== counts.at(-1)) throw new SyntaxError(`${name}: count is not the +Inf bucket`);
  }
}

/** Parses and checks an exposition. */
export function parseExposition(text: string): Exposition {
  if (!text.endsWith("\n")) throw new SyntaxError("The last line has no end");
  const types = new Map<string, string>();
  const helps = new Map<string, string>();
  const samples: Sample[] = [];
  const seen = new Set<string>();
  for (const line of text.split("\n")) {
    if (line === "") continue;
    const comment = /^# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.*)$/.exec(line);
    if (comment) {
      const map = comment[1] === "HELP" ? helps : types;
      if (map.has(comment[2]!)) throw new SyntaxError(`Twice: ${line}`);
      map.set(comment[2]!, comment[3]!);
      continue;
    }
    const sample = parseSample(line);
    const id = sample.name + JSON.stringify(sample.labels, Object.keys(sample.labels).sort());
    if (seen.has(id)) throw new SyntaxError(`Twice: ${line}`);
    seen.add(id);
    if (!familyOf(sample.name, types)) throw new SyntaxError(`No type before ${line}`);
    samples.push(sample);
  }
  for (const [name, type] of types) if (type === "histogram") checkHistogram(name, samples);
  return { types, helps, samples };
}
