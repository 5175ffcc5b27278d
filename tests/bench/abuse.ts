/**
 * `deno task abuse [--quick] [--only TEXT] [--seconds 8] [--json] [--markdown]`: each attack against a server process
 * of its own, while an honest client's latency is measured: what limited it, what it costs the attacker and the server,
 * what the honest notice. Fails when an attack was not held by the limits that it is to be held by. The attackers run
 * with the lowest priority: a real attacker brings its own processor. Linux only.
 */
import { parseArgs } from "node:util";
import { type Attack, ATTACKS } from "./abuse/attacks.ts";
import { type AttackPlan, measureAttack, type Outcome, problemsOf } from "./abuse/measure.ts";
import { abuseHeader, abuseRow } from "./abuse/table.ts";

const { values } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    only: { type: "string", default: "" },
    seconds: { type: "string", default: "8" },
    json: { type: "boolean", default: false },
    markdown: { type: "boolean", default: false },
    seed: { type: "string", default: "1" },
  },
});

const seconds = Number(values.seconds);
const plan: AttackPlan = values.quick
  ? { quietSeconds: 0.3, seconds: 15, untilHeld: true, seed: Number(values.seed) }
  : { quietSeconds: seconds / 2, seconds, seed: Number(values.seed) };
const chosen = ATTACKS.filter(({ name, comparison }) =>
  name.includes(values.only) && !(values.quick && comparison)
);

/** Quick runs measure nothing, so that several may go at once. */
const AT_ONCE = values.quick ? 3 : 1;

async function runAll(attacks: readonly Attack[]): Promise<boolean> {
  let failed = false;
  if (!values.json) console.log(abuseHeader(values.markdown));
  const rest = [...attacks];
  const work = async () => {
    for (let attack = rest.shift(); attack; attack = rest.shift()) {
      if (!await runOne(attack)) failed = true;
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return failed;
}

async function runOne(attack: Attack): Promise<boolean> {
  const outcome: Outcome = await measureAttack(attack, plan);
  console.log(
    values.json ? JSON.stringify(outcome) : abuseRow(attack, outcome, { markdown: values.markdown }),
  );
  const problems = problemsOf(attack, outcome);
  for (const problem of problems) console.error(`${attack.name}: ${problem}`);
  return problems.length === 0;
}

if (await runAll(chosen)) Deno.exitCode = 1;
