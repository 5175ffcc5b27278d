/** One attack, measured: a server, honest clients and attackers, each in a process of its own. Linux only. */
import { MeasuredServer } from "../../../ops/scaling/measured_server.ts";
import { deadlinesMissed, limitHits } from "../../support/limit_hits.ts";
import { freeTcpPort } from "../../support/server_process.ts";
import type { Tally } from "./attacker_side.ts";
import type { Attack } from "./attacks.ts";
import { Child } from "./child.ts";
import type { HonestMark } from "./honest.ts";
import { targetOf } from "./target.ts";

/** Devices of attackers. */
const ATTACKERS = 6;
/** How often it is looked whether an attack is held. */
const STEP_S = 0.25;

/** How long, or how much. */
export interface AttackPlan {
  readonly quietSeconds: number;
  /** At most, with `untilHeld`. */
  readonly seconds: number;
  /** Instead of the seconds. */
  readonly frames?: number;
  /** Only until the attack is held by all that it is to be held by. */
  readonly untilHeld?: true;
  readonly seed: number;
}

/** Shares of one processor, in percent. */
export interface Shares {
  readonly server: number;
  readonly honest: number;
  readonly attacker: number;
}

/** What was seen. */
export interface Outcome {
  readonly attack: string;
  readonly seconds: number;
  readonly tally: Tally;
  readonly hits: Record<string, number>;
  readonly missed: Record<string, number>;
  readonly quiet: { readonly honest: HonestMark; readonly shares: Shares };
  readonly during: { readonly honest: HonestMark; readonly shares: Shares };
  /** Resident memory of the server, MB: before, after each fifth of the attack, a second after its end. */
  readonly residentMb: readonly number[];
  readonly unhandledRejections: number;
  readonly internalErrors: number;
  /** Of requests, when the attackers had gone. */
  readonly heldBytes: number;
}

/** Runs it. Throws when the server or an honest client ends, or an honest message is refused. */
export async function measureAttack(attack: Attack, plan: AttackPlan): Promise<Outcome> {
  await using server = await MeasuredServer.make("sqlcipher", null);
  const [alice, bob, ...hostile] = await server.seed(2 + ATTACKERS);
  const metricsPort = freeTcpPort();
  await server.start({
    "metrics-enabled": "true",
    "metrics-listen": `127.0.0.1:${metricsPort}`,
    ...attack.flags,
  });
  const scrape = async () => await (await fetch(`http://127.0.0.1:${metricsPort}/metrics`)).text();
  await using honest = Child.start("honest.ts", { nice: false });
  await honest.ask(targetOf(server, [alice!, bob!]));
  await using attacker = Child.start("attacker.ts", { nice: true });
  const { frames = Infinity, seed } = plan;
  const wanted = { name: attack.name, frames: Math.min(frames, Number.MAX_SAFE_INTEGER), seed };
  await attacker.ask({ target: targetOf(server, hostile), ...wanted });

  const phase = async (work: () => Promise<unknown>) => {
    await honest.ask("mark");
    const before = await cpuOf(server, honest, attacker);
    await work();
    const after = await cpuOf(server, honest, attacker);
    const share = (of: keyof Shares) => Math.round((after[of] - before[of]) / (after.at - before.at) * 100);
    const shares = { server: share("server"), honest: share("honest"), attacker: share("attacker") };
    return { honest: await honest.ask("mark") as HonestMark, shares, seconds: (after.at - before.at) / 1000 };
  };
  await pause(1); // what is compiled just now is slow
  const quiet = await phase(() => pause(plan.quietSeconds));
  await using memory = new MemoryWatch(server);
  await attacker.say("go");
  let tally: Tally;
  const during = await phase(async () => {
    if (plan.frames === undefined) {
      const held = async () => uncountedOf(attack, await countsOf(await scrape())).length === 0;
      for (let left = plan.seconds; left > 0; left -= STEP_S) {
        await pause(Math.min(left, STEP_S));
        if (plan.untilHeld && await held()) break;
      }
      await attacker.say("stop");
    }
    tally = await attacker.answer() as Tally;
  });
  if (plan.frames !== undefined) await attacker.say("stop");
  await attacker.answer(); // it has hung up
  await pause(1);
  await honest.ask("rest"); // so that nothing of its own is held
  const residentMb = await memory.end();
  const body = await scrape();
  if (!server.isRunning) throw new Error("The server ended");
  return {
    attack: attack.name,
    seconds: Math.round(during.seconds),
    tally: tally!,
    ...await countsOf(body),
    quiet,
    during,
    residentMb,
    unhandledRejections: valueOf(body, "qpq_unhandled_rejections_total"),
    internalErrors: valueOf(body, 'qpq_request_errors_total{code="internal"}'),
    heldBytes: valueOf(body, "qpq_request_bytes"),
  };
}

/** Reads the server's memory every half second until its end. */
class MemoryWatch implements AsyncDisposable {
  readonly #samples: number[] = [];
  readonly #watching: Promise<void>;
  #over = false;

  constructor(server: MeasuredServer) {
    this.#watching = (async () => {
      while (!this.#over) {
        this.#samples.push(Math.round(await server.residentBytes() / 1e6));
        await pause(0.5);
      }
      this.#samples.push(Math.round(await server.residentBytes() / 1e6));
    })().catch(() => {}); // a server that has ended is told elsewhere
  }

  /** The first, the last, and those between them at each fifth. */
  async end(): Promise<number[]> {
    await this[Symbol.asyncDispose]();
    const last = this.#samples.length - 1;
    return [0, 0.2, 0.4, 0.6, 0.8, 1].map((part) => this.#samples[Math.round(part * last)] ?? 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#over = true;
    await this.#watching;
  }
}

/** What is missing in an outcome: names of limits and deadlines that should have counted, and things gone wrong. */
export function problemsOf(attack: Attack, outcome: Outcome): string[] {
  const wrong = (["unhandledRejections", "internalErrors"] as const).filter((name) => outcome[name] > 0);
  return [
    ...uncountedOf(attack, outcome).map((name) => `${name} counted nothing`),
    ...wrong.map((name) => `${name} happened`),
  ];
}

type Counts = Pick<Outcome, "hits" | "missed">;

function uncountedOf(attack: Attack, { hits, missed }: Counts): string[] {
  return [
    ...attack.limits.filter((name) => !hits[name]),
    ...attack.deadlines.filter((name) => !missed[name]),
  ];
}

async function countsOf(body: string): Promise<Counts> {
  return { hits: await limitHits(body), missed: await deadlinesMissed(body) };
}

async function cpuOf(server: MeasuredServer, honest: Child, attacker: Child) {
  const [ofServer, ofHonest, ofAttacker] = [
    (await server.cpu()).all,
    await honest.cpuMs(),
    await attacker.cpuMs(),
  ];
  return { server: ofServer, honest: ofHonest, attacker: ofAttacker, at: performance.now() };
}

function valueOf(body: string, name: string): number {
  return Number(body.split("\n").find((line) => line.startsWith(`${name} `))!.slice(name.length + 1));
}

function pause(seconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, seconds * 1000));
}
