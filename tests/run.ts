/**
 * Runs `deno test` with the arguments given, shows its output as it comes, and ends with the plain line
 * `N passed, N failed`. Keeps the exit code; no test at all is a failure.
 *
 * With `--parallel` half as many files again as there are processors run at once, unless DENO_JOBS says otherwise: those
 * that kill and start processes wait for half of their time.
 */
const [program, ...args] = [Deno.execPath(), "test", ...Deno.args];
const jobs = Deno.env.get("DENO_JOBS") ?? `${Math.ceil(navigator.hardwareConcurrency * 1.5)}`;
const child = new Deno.Command(program!, {
  args,
  env: { DENO_JOBS: jobs },
  stdout: "piped",
  stderr: "inherit",
}).spawn();
const decoder = new TextDecoder();
let tail = "";
for await (const chunk of child.stdout) {
  for (let written = 0; written < chunk.length;) written += await Deno.stdout.write(chunk.subarray(written));
  tail = (tail + decoder.decode(chunk, { stream: true })).slice(-4000);
}
const { code } = await child.status;
// deno-lint-ignore no-control-regex -- colours
const summary = /(\d+) passed[^|]*\| (\d+) failed/.exec(tail.replaceAll(/\x1b\[[0-9;]*m/g, ""));
const [passed, failed] = [Number(summary?.[1] ?? 0), Number(summary?.[2] ?? 0)];
console.log(`${passed} passed, ${failed} failed`);
Deno.exit(code !== 0 ? code : passed === 0 ? 1 : 0);
