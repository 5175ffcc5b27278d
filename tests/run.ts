/**
 * Runs `deno test` with the arguments given, shows its output as it comes, and ends with the plain line
 * `N passed, N failed`. Keeps the exit code; no test at all is a failure.
 */
const [program, ...args] = [Deno.execPath(), "test", ...Deno.args];
const child = new Deno.Command(program!, { args, stdout: "piped", stderr: "inherit" }).spawn();
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
