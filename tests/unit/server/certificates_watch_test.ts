import assert from "node:assert/strict";
import { join } from "node:path";
import { FileWatch } from "../../../mod/server/certificates_watch.ts";
import { FakeClock } from "../../support/fake_clock.ts";
import { tempFolder } from "../../support/temp_folder.ts";

const POLL_MS = 30_000;

/** Counts calls, and lets a test wait for the next one. */
class Calls {
  count = 0;
  #next = Promise.withResolvers<void>();

  readonly onChanged = async () => {
    this.count++;
    this.#next.resolve();
    this.#next = Promise.withResolvers<void>();
  };

  next(): Promise<void> {
    return this.#next.promise;
  }
}

/** Moves time while `until` is not there: file systems answer in real time. */
async function advanceUntil(clock: FakeClock, until: Promise<void>): Promise<void> {
  let there = false;
  until.then(() => there = true);
  while (!there) await clock.advance(POLL_MS);
}

Deno.test("FileWatch notices files that are renamed over, and calls once at the beginning", async () => {
  await using folder = await tempFolder();
  const path = join(folder.path, "cert.pem");
  await Deno.writeTextFile(path, "one");
  const clock = new FakeClock();
  const calls = new Calls();
  const first = calls.next();
  using _watch = new FileWatch([path], { clock, onChanged: calls.onChanged });
  await first;
  await Deno.writeTextFile(`${path}.new`, "two");
  const second = calls.next();
  await Deno.rename(`${path}.new`, path);
  await advanceUntil(clock, second);
  assert.equal(calls.count, 2);
});

Deno.test("FileWatch notices a link that now leads elsewhere, as in a mounted secret", {
  ignore: Deno.build.os === "windows",
}, async () => {
  await using folder = await tempFolder();
  const at = (...names: string[]) => join(folder.path, ...names);
  for (const version of ["v1", "v2"]) {
    await Deno.mkdir(at(version));
    await Deno.writeTextFile(at(version, "cert.pem"), version);
  }
  await Deno.symlink("v1", at("current"));
  const clock = new FakeClock();
  const calls = new Calls();
  const first = calls.next();
  using _watch = new FileWatch([at("current", "cert.pem")], { clock, onChanged: calls.onChanged });
  await first;
  await Deno.symlink("v2", at("current.new"));
  const second = calls.next();
  await Deno.rename(at("current.new"), at("current"));
  await advanceUntil(clock, second);
  assert.equal(calls.count, 2);
});

Deno.test("FileWatch is silent while nothing changes, and leaves no timer", async () => {
  await using folder = await tempFolder();
  const path = join(folder.path, "cert.pem");
  await Deno.writeTextFile(path, "one");
  const clock = new FakeClock();
  const calls = new Calls();
  const first = calls.next();
  const watch = new FileWatch([path, join(folder.path, "gone.pem")], { clock, onChanged: calls.onChanged });
  await first;
  for (let look = 0; look < 5; look++) await clock.advance(POLL_MS);
  await Deno.stat(path);
  assert.equal(calls.count, 1);
  watch[Symbol.dispose]();
  await clock.settle();
  assert.equal(clock.pendingTimers, 0);
});
