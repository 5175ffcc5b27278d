import assert from "node:assert/strict";
import { chooseLogFormat, configureLogs, logger, setLogFilter, stopLogs } from "../../../mod/base/log.ts";

/** Runs `work` with logging on; returns the lines. */
function linesOf(
  options: { filter?: string; format?: "human" | "json"; colours?: boolean },
  work: () => void,
): string[] {
  const lines: string[] = [];
  configureLogs({ filter: "trace", format: "json", ...options, write: (line) => lines.push(line) });
  try {
    work();
  } finally {
    stopLogs();
  }
  return lines;
}

const json = (work: () => void) => linesOf({}, work).map((line) => JSON.parse(line));

Deno.test("logger() writes nothing before configureLogs()", () => {
  logger("log_test").error("Nobody hears this");
});

Deno.test("configureLogs() writes one JSON object a line", () => {
  const [line] = linesOf(
    {},
    () => logger("delivery").info("Took {count} messages", { count: 3, queue: "ab" }),
  );
  assert.ok(line!.endsWith("\n") && line!.indexOf("\n") === line!.length - 1);
  const { ts, ...rest } = JSON.parse(line!);
  assert.ok(Math.abs(Date.parse(ts) - Date.now()) < 60_000);
  assert.deepEqual(rest, {
    level: "info",
    target: "qpq::delivery",
    msg: "Took 3 messages",
    count: 3,
    queue: "ab",
  });
});

Deno.test("configureLogs() names levels as the filter does", () => {
  const levels = json(() => {
    const log = logger("a::b");
    log.trace("x");
    log.debug("x");
    log.info("x");
    log.warn("x");
    log.error("x");
    log.fatal("x");
  }).map(({ level }) => level);
  assert.deepEqual(levels, ["trace", "debug", "info", "warn", "error", "error"]);
});

Deno.test("configureLogs() keeps properties apart from the line's own names", () => {
  const [line] = json(() => logger("x").info("m", { msg: "other", level: 7, ts: 1, target: "t" }));
  assert.equal(line.msg, "m");
  assert.deepEqual([line.msg_, line.level_, line.ts_, line.target_], ["other", 7, 1, "t"]);
});

Deno.test("configureLogs() writes errors with stack and causes", () => {
  const [line] = json(() =>
    logger("x").error("Failed", { error: new Error("a", { cause: new TypeError("b") }) })
  );
  assert.equal(line.error.message, "a");
  assert.match(line.error.stack, /log_test\.ts/);
  assert.equal(line.error.cause.name, "TypeError");
});

Deno.test("configureLogs() hides secrets in properties and in the message they fill", () => {
  for (const format of ["human", "json"] as const) {
    const text = linesOf({ format }, () => {
      const log = logger("x");
      log.info("Token {authToken} of {peer}", {
        authToken: "planted-1",
        peer: "10.9.8.7",
        payload: "planted-2",
      });
      log.info`Peer ${"10.9.8.7"} sent ${new Uint8Array([112, 108])}`;
      log.with({ password: "planted-3" }).warn("From 10.9.8.7");
      log.error("Bad", { error: new Error("peer 10.9.8.7", { cause: { secret: "planted-4" } }) });
    }).join("");
    assert.doesNotMatch(text, /planted|10\.9\.8\.7/);
    assert.match(text, /10\.9\.8\.0\/24 sent <2 bytes>/);
  }
});

Deno.test("configureLogs() writes for people, with what the message does not show behind it", () => {
  const [line] = linesOf({ format: "human" }, () => {
    logger("server").info("Listening on {listen}", {
      listen: "0.0.0.0:7000",
      names: ["a", "b"],
      why: "two words",
    });
  });
  assert.match(
    line!,
    /^\d{4}-\d\d-\d\d [\d:.]+Z INFO {2}qpq::server Listening on 0\.0\.0\.0:7000 names=\["a","b"\] why="two words"\n$/,
  );
});

Deno.test("configureLogs() colours only when told", () => {
  const work = () => logger("x").warn("Hm");
  assert.ok(linesOf({ format: "human", colours: true }, work)[0]!.includes("\x1b[33mWARN"));
  assert.ok(!linesOf({ format: "human", colours: false }, work)[0]!.includes("\x1b"));
});

Deno.test("a human line cannot be split or coloured by what is logged", () => {
  const [line] = linesOf({ format: "human" }, () => {
    logger("x").info("Name {name}", { name: "a\n2026 ERROR faked\x1b[31m", other: "b\r\nc" });
  });
  assert.equal(line!.split("\n").length, 2);
  assert.ok(!line!.includes("\x1b") && !line!.includes("\r"));
});

Deno.test("a human line shows errors and causes below it", () => {
  const text = linesOf({ format: "human" }, () => {
    logger("x").error("Failed", { error: new Error("outer", { cause: new Error("inner") }), code: 7 });
  }).join("");
  const lines = text.split("\n");
  assert.match(lines[0]!, /Failed code=7$/);
  assert.match(lines[1]!, /^ {4}error: Error: outer$/);
  assert.match(text, /\n {6}cause: Error: inner\n/);
});

Deno.test("the directive with the longest target decides, wherever it stands in the list", () => {
  for (
    const filter of [
      "info,qpq::delivery=debug,qpq::delivery::expiry=off",
      "qpq::delivery::expiry=off,qpq::delivery=debug,info",
    ]
  ) {
    const seen = linesOf({ filter }, () => {
      logger("server").debug("1");
      logger("server").info("2");
      logger("delivery").debug("3");
      logger("delivery").trace("4");
      logger("delivery::queues").debug("5");
      logger("delivery::expiry").error("6");
      logger("deliveryman").debug("7");
    }).map((line) => JSON.parse(line).msg);
    assert.deepEqual(seen, ["2", "3", "5"]);
  }
});

Deno.test("a filter of off writes nothing at all", () => {
  assert.deepEqual(linesOf({ filter: "off" }, () => logger("x").fatal("m")), []);
});

Deno.test("setLogFilter() changes the running filter, also of loggers made before", () => {
  const log = logger("server");
  const seen = linesOf({ filter: "info" }, () => {
    log.debug("1");
    assert.deepEqual(setLogFilter("qpq::server=debug"), []);
    log.debug("2");
    assert.equal(setLogFilter("nonsense").length, 1);
    log.debug("3");
    setLogFilter("off");
    log.error("4");
  }).map((line) => JSON.parse(line).msg);
  assert.deepEqual(seen, ["2", "3"]);
});

Deno.test("configureLogs() refuses a filter that cannot be parsed", () => {
  assert.throws(() => configureLogs({ filter: "loud", format: "json" }), RangeError);
});

Deno.test("logging never throws, whatever is logged and whatever becomes of the line", () => {
  const log = logger("x");
  configureLogs({
    filter: "trace",
    format: "json",
    write: () => {
      throw new Error("The disk is full");
    },
  });
  try {
    log.info("m");
  } finally {
    stopLogs();
  }
  const hostile = new Proxy({}, {
    get() {
      throw new Error("no");
    },
  });
  const [line] = json(() =>
    log.info("m {a} {b}", { a: hostile, b: Symbol("s"), c: () => 1, d: 10n, e: NaN })
  );
  assert.match(line.msg, /^m .* \[symbol\]$/);
  assert.deepEqual([line.c, line.d, line.e], ["[function]", "10", "NaN"]);
});

Deno.test("chooseLogFormat() is for people on a terminal outside production", () => {
  assert.equal(chooseLogFormat("auto", { terminal: true, production: false }), "human");
  assert.equal(chooseLogFormat("auto", { terminal: true, production: true }), "json");
  assert.equal(chooseLogFormat("auto", { terminal: false, production: false }), "json");
  assert.equal(chooseLogFormat("human", { terminal: false, production: true }), "human");
});
