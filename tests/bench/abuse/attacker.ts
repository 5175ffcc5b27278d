/** The hostile side of an abuse run, a process of its own: told a target and an attack, then "go", then "stop". */
import { Attacker } from "./attacker_side.ts";
import { ATTACKS } from "./attacks.ts";
import { tell, told } from "./child.ts";
import type { Target } from "./target.ts";

const input = told();
const { target, name, frames, seed } = (await input.next()).value as {
  target: Target;
  name: string;
  frames: number;
  seed: number;
};
const attack = ATTACKS.find((each) => each.name === name)!;
const attacker = new Attacker(target, { frames, seed });
await attack.prepare?.(attacker);
tell("ready");
await input.next();
const running = attack.run(attacker).then(() => tell(attacker.tally()));
await input.next();
attacker.stop();
await running;
await attacker.hangUp();
tell("gone");
Deno.exit(0);
